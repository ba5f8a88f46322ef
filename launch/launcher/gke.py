"""GKE through XPK: a JobSet that Kueue queues and Kubernetes restarts.

XPK's commands: https://github.com/AI-Hypercomputer/xpk
"""

from __future__ import annotations

import argparse
import shlex

from launcher.commands import Commands, LaunchError, last_line
from launcher.git_state import Checkout
from launcher.image import build_image
from launcher.job import Job, check_bucket


def launch(job: Job, options: argparse.Namespace, checkout: Checkout, commands: Commands) -> int:
    """Builds and pushes the image of HEAD, makes a workload of it, and follows it to the end.

    The run itself reads and writes the workdir's bucket. Without `--detach` the workload is deleted
    at the end, after a failure and after Ctrl-C.

    Returns:
      0 when the workload has succeeded, 1 when not.

    Raises:
      LaunchError: for mistakes found before anything is created, and when a tool fails.
    """
    for option in ("cluster", "accelerator", "zone", "image"):
        if not getattr(options, option):
            raise LaunchError(f"--on=gke needs --{option}: see launch/run.py --help")
    checkout.check_recipe(job.config)
    for program, remedy in (
        ("gcloud", "https://cloud.google.com/sdk/docs/install"),
        ("xpk", "pip install xpk"),
        ("kubectl", "gcloud components install kubectl"),
    ):
        commands.require(program, remedy)
    check_bucket(job, commands)
    image = build_image(options.image, "tpu", checkout, commands)
    if commands.stream("docker", "push", image):
        raise LaunchError(f"{image} could not be pushed: `gcloud auth configure-docker` lets you")
    place = [f"--cluster={options.cluster}", f"--zone={options.zone}"]
    if options.project:
        place.append(f"--project={options.project}")
    keep = False
    try:
        _create(job, options, image, place, commands)
        if options.detach:
            keep = True
            return 0
        return _follow(job, place, commands)
    finally:
        if not keep:
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
        # XPK's own default is no restart at all.
        f"--max-restarts={options.restarts}",
        "--deploy-stacktrace-sidecar",
        # Time to save on SIGTERM; the default is 30 seconds.
        "--termination-grace-period-seconds=120",
    )
    if result.returncode:
        raise LaunchError(f"xpk could not create {job.name}: {last_line(result.stderr)}")


def _follow(job: Job, place: list[str], commands: Commands) -> int:
    """Shows the first worker's log, then waits for the end."""
    commands.stream(
        *("kubectl", "logs", "--follow", "--ignore-errors", "--pod-running-timeout=24h"),
        f"--selector=jobset.sigs.k8s.io/jobset-name={job.name},"
        "batch.kubernetes.io/job-completion-index=0",
    )
    return commands.stream(
        *("xpk", "workload", "list", *place, f"--wait-for-job-completion={job.name}")
    )


def _delete(job: Job, place: list[str], commands: Commands) -> None:
    delete = ("xpk", "workload", "delete", f"--workload={job.name}", *place, "--force")
    for _ in range(3):
        result = commands.run(*delete)
        if not result.returncode:
            return
    raise LaunchError(
        f"workload {job.name} could not be deleted ({last_line(result.stderr)}): run "
        f"`{shlex.join(delete)}`"
    )
