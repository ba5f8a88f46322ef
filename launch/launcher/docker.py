"""Launch in a container on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from launcher.commands import Commands, LaunchError
from launcher.git_state import Checkout
from launcher.image import build_image
from launcher.job import Job

_HOME = "/home/lidit"
_CREDENTIALS = {"gcs": ".config/gcloud", "s3": ".aws"}
"""Location of the user's credentials for a store, relative to the home folder."""


def launch(job: Job, options: argparse.Namespace, checkout: Checkout, commands: Commands) -> int:
    """Build the image of HEAD and train in it, on the machine's GPUs or TPU chips.

    The workdir, unless it is a bucket, and the cache of data and compiled programs are folders of
    this machine. For a bucket the user's credentials are mounted in the container, read-only.

    Returns:
      The exit status of `lidit train`.

    Raises:
      LaunchError: when docker is missing or the build fails.
    """
    checkout.check_recipe(job.config)
    if job.store == "s3" and options.platform == "tpu":
        raise LaunchError(f"--workdir={job.workdir}: the image for TPUs reaches gs:// only")
    image = build_image("lidit", options.platform, checkout, commands)
    folders = {Path("~/.cache/lidit").expanduser(): f"{_HOME}/.cache/lidit"}
    lent = []
    if job.store:
        own = Path("~").expanduser() / _CREDENTIALS[job.store]
        lent = [f"--volume={own}:{_HOME}/{_CREDENTIALS[job.store]}:ro"]
    else:
        folders[Path(job.workdir).expanduser().resolve()] = f"{_HOME}/run"
        job = job.with_workdir(f"{_HOME}/run")
    if not commands.dry_run:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
    devices = {"cuda": ["--gpus=all"], "tpu": ["--privileged", "--network=host"]}
    # The user's own id, so that the user owns the files of the run.
    return commands.stream(
        *("docker", "run", "--rm", "--init", f"--name={job.name}", f"--user={options.user}"),
        *devices[options.platform],
        *(f"--volume={here}:{there}" for here, there in folders.items()),
        *lent,
        image,
        *job.arguments,
    )
