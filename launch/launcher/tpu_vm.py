"""Launch on TPU VMs from queued resources: create, set up, follow, restart, delete."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from launcher.accelerators import parse_accelerator
from launcher.commands import Commands, LaunchError
from launcher.git_state import Checkout
from launcher.inputs import buckets_to_mount, inputs_of, refuse_local
from launcher.job import STOPPED_STATUS, Job, check_bucket
from launcher.queued_resource import PreemptedError, QueuedResource, Request, UnavailableError

_LOST_CONNECTIONS = 10


def launch(job: Job, options: argparse.Namespace, checkout: Checkout, commands: Commands) -> int:
    """Train on TPU VMs to the end; the machines are deleted in all cases.

    Returns:
      The exit status of `lidit train` on the first worker.

    Raises:
      LaunchError: for mistakes found before anything is created, and when the cloud refuses.
    """
    accelerator = parse_accelerator(options.accelerator)
    zones = _zones(options.zone)
    checkout.check_recipe(job.config)
    inputs = inputs_of(job, checkout)
    refuse_local(inputs, checkout)
    commands.require("gcloud", "https://cloud.google.com/sdk/docs/install")
    bucket = check_bucket(job, commands)
    request = Request(
        name=job.name,
        zone=zones[0],
        project=options.project,
        accelerator=accelerator.name,
        runtime=options.runtime or accelerator.generation.runtime,
        slices=options.slices,
        capacity=options.capacity,
    )
    resources = [
        QueuedResource(dataclasses.replace(request, zone=zone), commands, options.poll_seconds)
        for zone in zones
    ]
    for resource in resources:
        resource.check()
    cache = options.compile_cache or f"gs://{bucket}/lidit-compile-cache"
    mounts = buckets_to_mount(job, inputs)
    variables = (
        f"LIDIT_ACCELERATOR={accelerator.name} LIDIT_SLICES={options.slices} "
        f"LIDIT_STOPPED_STATUS={STOPPED_STATUS}"
    )
    worker = f"{variables} bash {_folder(checkout)}/launch/worker.sh"
    start = f"{worker} follow --compile-cache={cache} -- {shlex.join(job.arguments)}"
    for attempt in range(options.restarts + 1):
        try:
            with _machines(resources, options.zone_minutes, commands) as resource:
                _stage(resource, checkout, job, mounts, cache)
                return _train(resource, start, f"{worker} status", commands, options.poll_seconds)
        except PreemptedError:
            left = options.restarts - attempt
            commands.say(f"the machines were preempted; {left} more requests are allowed")
    raise LaunchError(
        f"the machines were preempted {options.restarts + 1} times: the same command "
        "continues from the last checkpoint; --restarts allows more"
    )


def _zones(text: str | None) -> list[str]:
    """Return the zones of "A,B,C", the preferred one first."""
    zones = [zone.strip() for zone in (text or "").split(",")]
    if not text or not all(zones):
        raise LaunchError("which zone? --zone=us-east5-b, where the project has quota")
    if len(set(zones)) < len(zones):
        raise LaunchError(f"--zone={text}: a zone is given twice")
    return zones


@contextmanager
def _machines(
    resources: list[QueuedResource], minutes: float, commands: Commands
) -> Iterator[QueuedResource]:
    """Yield the machines of the first zone that provides them; delete them at the end in all cases.

    The wait per zone is limited to `minutes`, except in the last zone. A request is deleted before
    the next zone is tried, so that there is never more than one.

    Args:
      resources: one resource per zone, not created yet.
      minutes: see above.
      commands: prints the status.
    """
    for resource, following in zip(resources, [*resources[1:], None], strict=True):
        # From here on the resource may exist, even when `create` fails.
        try:
            resource.create()
            resource.wait_until_active(minutes if following else None)
            yield resource
            return
        except UnavailableError as error:
            if not following:
                raise
            reason = str(error)
        finally:
            with commands.undisturbed():
                resource.delete()
        commands.say(f"{reason}; trying {following.zone}")


def _stage(
    resource: QueuedResource, checkout: Checkout, job: Job, mounts: list[str], cache: str
) -> None:
    """Copy the commit to all workers and set up its environment there."""
    folder = _folder(checkout)
    with checkout.archive() as archive:
        resource.copy(archive)
        unpack = f"mkdir -p {folder} && tar -xzf {archive.name} -C {folder}"
        resource.everywhere(unpack)
    setup = f"bash {folder}/launch/setup_worker.sh --platform=tpu --store={job.store}"
    mounted = "".join(f" --mount={bucket}" for bucket in mounts)
    resource.everywhere(f"{setup}{mounted} --compile-cache={cache}")


def _train(
    resource: QueuedResource, start: str, ask: str, commands: Commands, poll_seconds: float
) -> int:
    """Start the run, or find it running, and follow it despite lost connections.

    Args:
      resource: the machines.
      start: command that starts or follows the run, on every worker.
      ask: command that prints the state of a worker's run.
      commands: prints the status.
      poll_seconds: between two connections.
    """
    for _ in range(_LOST_CONNECTIONS):
        if not resource.follow(start):
            return 0
        if not resource.is_active():
            raise PreemptedError
        status = resource.ask_first_worker(ask)
        if status == str(STOPPED_STATUS):
            commands.say(
                "the run has saved itself and stopped; starting it, or its machines, again"
            )
        elif status and status.isdecimal():
            return int(status) or 1  # 0: another worker failed
        else:
            commands.say("the connection was lost, the run continues; connecting again")
        commands.pause(poll_seconds)
    raise LaunchError(
        f"the workers could not be reached {_LOST_CONNECTIONS} times in a row: look "
        "at the last lines above; the same command continues from the last checkpoint"
    )


def _folder(checkout: Checkout) -> str:
    return f"lidit-{checkout.short}"
