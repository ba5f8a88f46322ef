"""Launch on GKE through XPK: a JobSet that Kueue queues and Kubernetes restarts.

XPK's commands: https://github.com/AI-Hypercomputer/xpk
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import subprocess

from launcher.commands import Commands, LaunchError, cause
from launcher.git_state import Checkout
from launcher.image import build_image
from launcher.job import STOPPED_STATUS, Job, check_bucket


def launch(job: Job, options: argparse.Namespace, checkout: Checkout, commands: Commands) -> int:
    """Build and push the image of HEAD, create a workload, and follow it to the end.

    The run itself reads and writes the workdir's bucket. Without `--detach` the workload is deleted
    at the end, after a failure and after Ctrl-C.

    Returns:
      0 when the workload has succeeded, else 1.

    Raises:
      LaunchError: for mistakes found before anything is created, and when a tool fails.
    """
    for option in ("cluster", "accelerator", "zone", "image"):
        if not getattr(options, option):
            raise LaunchError(f"--on=gke needs --{option}: see launch/run.py --help")
    if "," in options.zone:
        raise LaunchError(f"--zone={options.zone}: on GKE name one zone, that of the cluster")
    checkout.check_recipe(job.config)
    for program, remedy in (
        ("gcloud", "https://cloud.google.com/sdk/docs/install"),
        ("xpk", "pip install xpk"),
        ("kubectl", "gcloud components install kubectl"),
    ):
        commands.require(program, remedy)
    check_bucket(job, commands)
    place = [f"--cluster={options.cluster}", f"--zone={options.zone}"]
    if options.project:
        place.append(f"--project={options.project}")
    if _exists(job, place, commands):
        raise LaunchError(
            f"workload {job.name} exists already: give another --name, or delete it with "
            f"`{shlex.join(_deletion(job, place))}`"
        )
    image = build_image(options.image, "tpu", checkout, commands)
    if commands.stream("docker", "push", image):
        raise LaunchError(f"{image} could not be pushed: `gcloud auth configure-docker` lets you")
    keep = False
    try:
        _create(job, options, image, place, commands)
        if options.detach:
            keep = True
            return 0
        return _follow(job, place, commands)
    finally:
        if not keep:
            with commands.undisturbed():
                _delete(job, place, commands)


def _create(
    job: Job, options: argparse.Namespace, image: str, place: list[str], commands: Commands
) -> None:
    # A reservation belongs to the cluster's node pool, not to the workload.
    capacity = ["--spot"] if options.capacity == "spot" else []
    result = commands.run(
        *("xpk", "workload", "create", f"--workload={job.name}", *place),
        *(f"--tpu-type={options.accelerator}", f"--num-slices={options.slices}", *capacity),
        f"--docker-image={image}",
        f"--command=lidit {shlex.join(job.arguments)}",
        f"--env=LIDIT_ACCELERATOR={options.accelerator}",
        f"--env=LIDIT_STOPPED_STATUS={STOPPED_STATUS}",
        # XPK's default is no restart.
        f"--max-restarts={options.restarts}",
        "--deploy-stacktrace-sidecar",
        # Time to save on SIGTERM; the default is 30 seconds.
        "--termination-grace-period-seconds=120",
    )
    if result.returncode:
        raise LaunchError(f"xpk could not create {job.name}: {_reason(result)}")


def _follow(job: Job, place: list[str], commands: Commands) -> int:
    """Show the first worker's log, then wait for the end."""
    commands.stream(
        *("kubectl", "logs", "--follow", "--ignore-errors", "--pod-running-timeout=24h"),
        f"--selector=jobset.sigs.k8s.io/jobset-name={job.name},"
        "batch.kubernetes.io/job-completion-index=0",
    )
    return commands.stream(
        *("xpk", "workload", "list", *place, f"--wait-for-job-completion={job.name}")
    )


def _delete(job: Job, place: list[str], commands: Commands) -> None:
    reason = ""
    for _ in range(3):
        result = commands.run(*_deletion(job, place))
        if not result.returncode:
            return
        reason = _reason(result)
        # XPK also fails on a workload that was never created.
        with contextlib.suppress(LaunchError):
            if not _exists(job, place, commands):
                return
    raise LaunchError(
        f"workload {job.name} could not be deleted ({reason}): run "
        f"`{shlex.join(_deletion(job, place))}`"
    )


def _deletion(job: Job, place: list[str]) -> tuple[str, ...]:
    return ("xpk", "workload", "delete", f"--workload={job.name}", *place, "--force")


def _exists(job: Job, place: list[str], commands: Commands) -> bool:
    """Return whether the cluster has a workload of this name, finished ones included."""
    result = commands.run("xpk", "workload", "list", *place, f"--filter-by-job={job.name}")
    if result.returncode:
        raise LaunchError(
            f"the cluster does not answer ({_reason(result)}): is {' '.join(place)} right? "
            "`gcloud container clusters list` shows what there is"
        )
    return any(line.split()[:1] == [job.name] for line in result.stdout.splitlines())


def _reason(result: subprocess.CompletedProcess[str]) -> str:
    """Return the last line with a cause; XPK prints errors like other lines, its status last."""
    lines = (result.stderr + result.stdout).splitlines()
    return cause("\n".join(line for line in lines if "XPK failed" not in line))
