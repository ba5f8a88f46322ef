"""`lidit train`: from a recipe to checkpoints, metrics and image grids in a workdir."""

from __future__ import annotations

import argparse
import errno
import os
from pathlib import Path
from typing import Any

from lidit_jax.commands.arguments import add_command
from lidit_jax.commands.recipe import checked_recipe
from lidit_jax.errors import LiditError
from lidit_jax.io.output import writable_folder
from lidit_jax.io.paths import to_path

_LARGEST_STATUS = 255
_EXAMPLES = """\
  lidit train --config=configs/demo.py --workdir=runs/demo
  lidit train --config=demo --workdir=runs/small --config.model.depth=4 --config.seed=1

All files of the run are in the workdir. The same command resumes from its last checkpoint, with the
same data order, also on another number of devices. Every field of lidit_jax/config/schema.py can be
set as --config.FIELD=VALUE.

On several hosts, start the same command on each: Slurm and TPU pods are detected, other launchers
must set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. In a checkout, launch/run.py
starts it on TPU VMs, GKE, Slurm, in containers, or in several local processes.

SIGTERM or Ctrl-C saves and stops, with exit status 0, or LIDIT_STOPPED_STATUS, for schedulers that
restart only failed jobs.
"""

_PREFIX = "--config."


def add_parser(subparsers: Any) -> None:
    """Add `lidit train`."""
    parser = add_command(
        subparsers, "train", "train a model, or resume a run in its workdir", _EXAMPLES, run
    )
    parser.add_argument(
        "--config", required=True, metavar="RECIPE", help="a recipe: configs/NAME.py, or its name"
    )
    parser.add_argument(
        "--workdir",
        required=True,
        type=to_path,
        metavar="DIR",
        help="folder of the run, also gs://BUCKET/… or s3://BUCKET/…",
    )
    parser.add_argument(
        "--config.FIELD",
        metavar="VALUE",
        help="override a field of the recipe (model.depth, seed, ...); repeatable",
    )


def split_overrides(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Separate `--config.a.b=V` and `--config.a.b V` from the other arguments.

    Returns:
      The overrides as `a.b=V`, and the other arguments.
    """
    overrides, rest = [], []
    remaining = iter(arguments)
    for argument in remaining:
        if not argument.startswith(_PREFIX):
            rest.append(argument)
            continue
        override = argument.removeprefix(_PREFIX)
        if "=" not in override:
            value = next(remaining, None)
            if value is None or value.startswith("--"):
                raise LiditError(f"{argument} has no value: write {argument}=VALUE")
            override = f"{override}={value}"
        overrides.append(override)
    return overrides, rest


def run(options: argparse.Namespace) -> int:
    """Check recipe and workdir, then train."""
    import jax

    from lidit_jax.hardware import known_faults
    from lidit_jax.hardware.xla_flags import apply_flags
    from lidit_jax.parallel.distributed import join_processes, print_on_main
    from lidit_jax.training.optimizers import schedule_warnings
    from lidit_jax.training.preemption import Terminated, raise_on_sigterm

    config = checked_recipe(options)
    schedule = schedule_warnings(config, resumed=_has_checkpoints(options.workdir))
    stopped_status = _stopped_status()
    flags = apply_flags()
    join_processes()
    print_on_main(flags + known_faults.warnings(jax.devices()) + schedule)
    try:
        with raise_on_sigterm(), writable_folder(options.workdir, "--workdir"):
            from lidit_jax.training import loop

            state = loop.train(config, options.workdir)
    except Terminated:
        print("stopped; run the same command to continue")
        return stopped_status
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise LiditError(
            f"no space left for {error.filename or options.workdir}: make room, and run the "
            "same command to continue from the last checkpoint"
        ) from error
    if int(state.step) < config.training.steps:
        return stopped_status
    return 0


def _has_checkpoints(workdir: Path) -> bool:
    try:
        return any(entry.name.isdecimal() for entry in (workdir / "checkpoints").iterdir())
    except OSError:  # there is none, or errors in it are reported later
        return False


def _stopped_status() -> int:
    """Return the exit status of a run that was stopped before its last step."""
    given = os.environ.get("LIDIT_STOPPED_STATUS", "0")
    if not given.isdecimal() or int(given) > _LARGEST_STATUS:
        raise LiditError(f"LIDIT_STOPPED_STATUS={given!r} is not an exit status from 0 to 255")
    return int(given)
