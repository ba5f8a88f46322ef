"""Launch of one or several processes on this machine: one GPU machine, or a test of many hosts."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from launcher.commands import Commands, LaunchError
from launcher.job import Job

_LAST_LINES = 20
_SECONDS_TO_SAVE = 600


def launch(job: Job, options: argparse.Namespace, root: Path, commands: Commands) -> int:
    """Run `lidit train` from the work tree; process 0 prints, the output of others goes to logs.

    Ctrl-C and SIGTERM let the run save itself. When one process fails, the others are stopped and
    its last lines are shown.

    Returns:
      The exit status of the first process that failed, or 0.

    Raises:
      LaunchError: when there are more processes than GPUs.
    """
    environments = process_environments(options.processes, _count_gpus(), _free_port())
    command = [_python(root), "-m", "lidit_jax.cli", *job.arguments]
    if commands.dry_run:
        for variables in environments:
            shown = [f"{name}={value}" for name, value in sorted(variables.items())]
            print(shlex.join([*(["env", *shown] if shown else []), *command]))
        return 0
    return _run(command, environments, commands)


def process_environments(processes: int, gpus: int, port: int) -> list[dict[str, str]]:
    """Return the variables of each process: process 0's address, process count and index.

    Args:
      processes: number of processes.
      gpus: GPUs of this machine; each of several processes gets one.
      port: port of process 0.

    Raises:
      LaunchError: when there are more processes than GPUs.
    """
    if processes == 1:
        return [{}]
    if gpus and processes > gpus:
        raise LaunchError(f"--processes={processes}: this machine has {gpus} GPUs")
    return [
        {
            "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(number),
        }
        | ({"CUDA_VISIBLE_DEVICES": str(number)} if gpus else {})
        for number in range(processes)
    ]


def _run(command: Sequence[str], environments: list[dict[str, str]], commands: Commands) -> int:
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="lidit-") as folder:
        try:
            for number, variables in enumerate(environments):
                running.append(_start(command, variables, _log(folder, number)))
            return _wait(running, folder, commands)
        except KeyboardInterrupt:
            return 130
        finally:
            _stop(running)


def _log(folder: str, number: int) -> Path | None:
    """Return the log file of a process other than 0, whose last lines are shown if it fails."""
    return Path(folder) / f"{number}.log" if number else None


def _start(
    command: Sequence[str], variables: dict[str, str], log: Path | None
) -> subprocess.Popen[bytes]:
    environment = os.environ | variables
    if log is None:
        return subprocess.Popen(command, env=environment, start_new_session=True)
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait(running: list[subprocess.Popen[bytes]], folder: str, commands: Commands) -> int:
    while True:
        statuses = [process.poll() for process in running]
        for number, status in enumerate(statuses):
            if status:
                print(f"# process {number} ended with status {status}", file=sys.stderr)
                if log := _log(folder, number):
                    lines = log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
                    print(*lines, sep="\n", file=sys.stderr)
                return status if status > 0 else 1
        if None not in statuses:
            return 0
        commands.pause(0.2)


def _stop(running: list[subprocess.Popen[bytes]]) -> None:
    """Send SIGTERM, after which a run saves itself, then SIGKILL to processes that do not end."""
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _SECONDS_TO_SAVE
    for process in running:
        try:
            process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _python(root: Path) -> str:
    """Return the Python of the environment of `launch/quickstart.sh`, else this one."""
    made = Path(os.environ.get("LIDIT_VENV") or root / ".venv") / "bin" / "python"
    return str(made) if made.is_file() else sys.executable


def _count_gpus() -> int:
    if shutil.which("nvidia-smi") is None:
        return 0
    result = subprocess.run(("nvidia-smi", "--list-gpus"), capture_output=True, text=True)
    return len(result.stdout.splitlines()) if result.returncode == 0 else 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
