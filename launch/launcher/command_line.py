"""Command line of `launch/run.py`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from launcher import docker, gke, local, slurm, tpu_vm
from launcher.commands import Commands, LaunchError
from launcher.git_state import Checkout
from launcher.job import make_job

_ROOT = Path(__file__).resolve().parents[2]

_EXAMPLES = """\
examples:
  python launch/run.py --on=local --processes=2 train --config=demo --workdir=runs/demo
  python launch/run.py --on=tpu-vm --accelerator=v6e-64 --zone=us-east5-b --capacity=spot \\
      train --config=configs/NAME.py --workdir=gs://BUCKET/runs/first
  python launch/run.py --on=tpu-vm --accelerator=v6e-64 --zone=us-east5-b,us-east1-d \\
      --capacity=spot train --config=configs/NAME.py --workdir=gs://BUCKET/runs/first
  python launch/run.py --on=gke --cluster=C --accelerator=v6e-256 --zone=us-east5-b \\
      --image=us-docker.pkg.dev/PROJECT/images/lidit train --config=… --workdir=gs://…
  python launch/run.py --on=slurm --nodes=4 --gpus-per-node=8 train --config=… --workdir=/shared/…
  python launch/run.py --on=docker train --config=demo --workdir=runs/demo

Everywhere but with --on=local the run starts from the commit HEAD of a clean work tree. The same
command again continues from the last checkpoint. --dry-run only prints what would run.
Exit status: that of `lidit train`; 2 for wrong arguments or settings; 130 after Ctrl-C.
"""


def main(arguments: Sequence[str]) -> int:
    """Read the command line and launch; mistakes give one line and exit status 2."""
    try:
        own, training = _split(list(arguments))
        parser = build_parser()
        _refuse_own_options(training, parser)
        options = parser.parse_args(own)
        commands = Commands(options.dry_run)
        with commands.one_interrupt():
            return _launch(options, training, commands)
    except LaunchError as error:
        print(f"launch: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("launch: interrupted; nothing was left behind", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the launcher's own options, without those of `lidit train`."""
    parser = argparse.ArgumentParser(
        prog="launch/run.py",
        description="Start `lidit train` here, on TPU VMs, on GKE, on Slurm or in a container.",
        usage="%(prog)s --on=WHERE [options] train --config=RECIPE --workdir=DIR …",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--on", required=True, choices=("local", "tpu-vm", "gke", "slurm", "docker"))
    add("--name", help="of the job (default: from the workdir)")
    add("--dry-run", action="store_true", help="print every command and file; run nothing")
    add("--detach", action="store_true", help="gke, slurm: do not wait for the end")
    add("--poll-seconds", type=float, default=20, help="between two checks (%(default)s)")

    cloud = parser.add_argument_group("tpu-vm and gke").add_argument
    cloud("--accelerator", metavar="TYPE", help="v6e-64, v5litepod-16, v5p-256 (128 chips) …")
    cloud("--zone", help="of the machines or of the cluster; tpu-vm: several, A,B,C, in order")
    cloud(
        "--zone-minutes",
        type=float,
        default=30,
        help="tpu-vm: wait so long in a zone before the next is tried (%(default)s)",
    )
    cloud("--project", help="default: gcloud's")
    cloud("--slices", type=_positive, default=1, help="more than one: multislice")
    cloud("--capacity", choices=("on-demand", "spot", "reserved"), default="on-demand")
    cloud("--restarts", type=int, default=50, help="after preemptions (%(default)s)")
    cloud("--runtime", help="tpu-vm: image of the VM (default: the generation's)")
    cloud(
        "--compile-cache", metavar="gs://…", help="tpu-vm: default gs://BUCKET/lidit-compile-cache"
    )
    cloud("--cluster", help="gke: made by `xpk cluster create`")
    cloud("--image", metavar="REPOSITORY", help="gke: where images are pushed, without a tag")

    batch = parser.add_argument_group("slurm").add_argument
    batch("--nodes", type=_positive, default=1)
    batch("--gpus-per-node", type=_positive, default=1)
    batch("--process-per", choices=("node", "gpu"), default="gpu")
    batch("--time", default="24:00:00", help="limit of the job (%(default)s)")
    batch("--sbatch", action="append", default=[], metavar="LINE", help="such as --partition=gpu")

    here = parser.add_argument_group("local and docker").add_argument
    here("--processes", type=_positive, default=1, help="local: how many (%(default)s)")
    here("--platform", choices=("cuda", "tpu"), default="cuda", help="docker: which image")
    return parser


def _launch(options: argparse.Namespace, training: list[str], commands: Commands) -> int:
    job = make_job(training, options.name)
    if options.on == "local":
        return local.launch(job, options, _ROOT, commands)
    options.user = f"{os.getuid()}:{os.getgid()}"
    place = {"tpu-vm": tpu_vm, "gke": gke, "slurm": slurm, "docker": docker}[options.on]
    return place.launch(job, options, Checkout(_ROOT), commands)


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    if "train" not in arguments:
        if {"-h", "--help"} & set(arguments) or not arguments:
            return arguments or ["--help"], []
        raise LaunchError("what to run? end with `train --config=RECIPE --workdir=DIR`")
    first = arguments.index("train")
    return arguments[:first], arguments[first:]


def _refuse_own_options(training: list[str], parser: argparse.ArgumentParser) -> None:
    """Refuse launcher options after `train`: `lidit train` has none of these names."""
    own = set(parser._option_string_actions) - {"-h", "--help"}  # lidit has these too
    for argument in training:
        option = argument.partition("=")[0]
        if option in own:
            raise LaunchError(f"{option} belongs before train: it is an option of the launcher")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value
