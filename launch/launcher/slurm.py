"""Launch on Slurm: one batch script, with one process per node or per GPU."""

from __future__ import annotations

import argparse
import getpass
import shlex
from pathlib import Path

from launcher.commands import Commands, LaunchError, cause
from launcher.git_state import Checkout
from launcher.job import Job

_OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL")
_SILENCE = 10
_SCRIPT = """\
#!/usr/bin/env bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={tasks}
#SBATCH --gpus-per-node={gpus}
#SBATCH --time={time}
#SBATCH --output={log}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@120{extra}
set -euo pipefail
cd {folder}
bash launch/setup_worker.sh --platform=cuda{store}
{devices}# JAX finds the other processes in Slurm's own variables.
srun --kill-on-bad-exit=1 .venv/bin/lidit {arguments}
"""


def launch(job: Job, options: argparse.Namespace, checkout: Checkout, commands: Commands) -> int:
    """Submit the run and follow its log; Ctrl-C cancels it, unless with `--detach`.

    Slurm restarts it after a preemption or the loss of a node (`--requeue`), and the run resumes
    from its last checkpoint. The commit is copied to a folder beside the workdir, on a file system
    shared by all nodes, or beside the checkout when the workdir is in a bucket.

    Returns:
      0 when the job has completed, else 1.

    Raises:
      LaunchError: when Slurm refuses the job.
    """
    checkout.check_recipe(job.config)
    commands.require("sbatch", "log in to the cluster's login node and start this there")
    place, name = checkout.root.parent, job.name
    if not job.store:
        workdir = Path(job.workdir).expanduser().absolute()
        place, name = workdir.parent, workdir.name
        job = job.with_workdir(str(workdir))
    folder = place / f"lidit-{checkout.short}"
    log = place / f"{name}.log"
    script = place / f"{name}.sbatch"
    _refuse_name_in_use(job, commands)
    content = batch_script(job, options, folder, log)
    commands.show(script.name, content)
    _stage(checkout, folder, commands)
    if not commands.dry_run:
        script.write_text(content)
    identity, finished = "", False
    try:
        result = commands.run("sbatch", "--parsable", str(script))
        if result.returncode:
            raise LaunchError(f"sbatch refused the job: {cause(result.stderr)}")
        identity = result.stdout.strip().partition(";")[0]
        if not options.detach:
            status = _follow(identity, log, options.poll_seconds, commands)
            finished = True
            return status
        commands.say(f"job {identity}; its log: {log}")
        finished = True
        return 0
    finally:
        if not finished:
            with commands.undisturbed():
                _cancel(identity, job, commands)


def batch_script(job: Job, options: argparse.Namespace, folder: Path, log: Path) -> str:
    """Return the script for `sbatch`."""
    extra = "".join(f"\n#SBATCH {line}" for line in options.sbatch)
    by_gpu = options.process_per == "gpu"
    devices = ""
    if not by_gpu:
        # JAX uses one GPU per process by default.
        every = ",".join(map(str, range(options.gpus_per_node)))
        devices = f"export JAX_LOCAL_DEVICE_IDS={every}\n"
    return _SCRIPT.format(
        name=job.name,
        nodes=options.nodes,
        tasks=options.gpus_per_node if by_gpu else 1,
        gpus=options.gpus_per_node,
        time=options.time,
        log=log,
        extra=extra,
        folder=shlex.quote(str(folder)),
        devices=devices,
        store=f" --store={job.store}" if job.store else "",
        arguments=shlex.join(job.arguments),
    )


def _refuse_name_in_use(job: Job, commands: Commands) -> None:
    """Refuse a name in use: two jobs in one workdir conflict, and `scancel` would stop both."""
    result = commands.run("squeue", "--me", "--noheader", "--format=%i", f"--name={job.name}")
    if result.returncode:
        raise LaunchError(f"squeue does not answer: {cause(result.stderr)}")
    if identities := result.stdout.split():
        raise LaunchError(
            f"job {job.name} exists already ({identities[0]}): give another --name, or cancel it "
            f"with `scancel {identities[0]}`"
        )


def _stage(checkout: Checkout, folder: Path, commands: Commands) -> None:
    if folder.is_dir():
        return
    # Under another name until it is complete: an existing folder is not unpacked again.
    part = f"{folder}.part"
    with checkout.archive() as archive:
        for command in (
            ("mkdir", "-p", part),
            ("tar", "-xzf", str(archive), "-C", part),
            ("mv", part, str(folder)),
        ):
            result = commands.run(*command)
            if result.returncode:
                raise LaunchError(f"cannot write {folder}: {cause(result.stderr)}")


def _follow(identity: str, log: Path, poll_seconds: float, commands: Commands) -> int:
    """Show the job's output until Slurm reports its end."""
    shown = silent = 0
    while True:
        result = commands.run(
            *("sacct", "--noheader", "--parsable2", "--allocations", "--format=State"),
            f"--jobs={identity}",
            quiet=True,
        )
        silent = silent + 1 if result.returncode else 0
        if silent > _SILENCE:
            raise LaunchError(f"sacct does not answer: {cause(result.stderr)}")
        state = result.stdout.strip().splitlines()[-1:] or [""]
        if log.is_file():
            with log.open(encoding="utf-8", errors="replace") as file:
                file.seek(shown)
                print(file.read(), end="", flush=True)
                shown = file.tell()
        if commands.dry_run or state[0].startswith(_OVER):
            commands.say(f"job {identity}: {state[0] or 'COMPLETED'}")
            return 0 if commands.dry_run or state[0] == "COMPLETED" else 1
        commands.pause(poll_seconds)


def _cancel(identity: str, job: Job, commands: Commands) -> None:
    which = [identity] if identity else [f"--name={job.name}", f"--user={getpass.getuser()}"]
    reason = ""
    for _ in range(3):
        result = commands.run("scancel", *which)
        if not result.returncode:
            return
        reason = cause(result.stderr)
    raise LaunchError(
        f"the job could not be cancelled ({reason}): run `{shlex.join(['scancel', *which])}`"
    )
