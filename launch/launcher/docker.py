"""The run in a container on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from launcher.commands import Commands, LaunchError
from launcher.git_state import Checkout
from launcher.image import build_image
from launcher.job import Job

_HOME = "/home/lidit"


def launch(job: Job, options: argparse.Namespace, checkout: Checkout, commands: Commands) -> int:
    """Builds the image of HEAD and trains in it, on the machine's GPUs or TPU chips.

    The workdir and the cache of data and compiled programs are folders of this machine.

    Returns:
      The exit status of `lidit train`.

    Raises:
      LaunchError: when docker is missing or the build fails.
    """
    checkout.check_recipe(job.config)
    if "://" in job.workdir:
        raise LaunchError(f"--workdir={job.workdir}: in a container the workdir is a local folder")
    image = build_image("lidit", options.platform, checkout, commands)
    workdir = Path(job.workdir).expanduser().resolve()
    cache = Path("~/.cache/lidit").expanduser()
    for folder in (workdir, cache):
        if not commands.dry_run:
            folder.mkdir(parents=True, exist_ok=True)
    devices = {"cuda": ["--gpus=all"], "tpu": ["--privileged", "--network=host"]}
    # The user's own number, so that what the run writes belongs to the user.
    return commands.stream(
        *("docker", "run", "--rm", "--init", f"--name={job.name}", f"--user={options.user}"),
        *devices[options.platform],
        *(f"--volume={workdir}:{_HOME}/run", f"--volume={cache}:{_HOME}/.cache/lidit"),
        image,
        *job.with_workdir(f"{_HOME}/run").arguments,
    )
