"""Queued resource: TPU VMs that are requested, waited for, used, and always deleted.

The commands are those of https://cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from launcher.commands import Commands, LaunchError, cause

_GONE = ("FAILED", "SUSPENDING", "SUSPENDED", "DELETING")
_TRIES = 5


class PreemptedError(Exception):
    """The cloud preempted the machines."""


class UnavailableError(LaunchError):
    """Machines that are not available in the zone; they may be in another one."""


@dataclass(frozen=True)
class Request:
    """Requested machines."""

    name: str
    zone: str
    project: str | None
    accelerator: str
    runtime: str
    slices: int
    capacity: str
    """ "on-demand", "spot" or "reserved"."""


class QueuedResource:
    """Queued resource by name; creating it twice is an error, deleting it twice is not."""

    def __init__(self, request: Request, commands: Commands, poll_seconds: float):
        """Nothing is created yet."""
        self._request, self._commands, self._poll = request, commands, poll_seconds
        self._place = [f"--zone={request.zone}"]
        if request.project:
            self._place.append(f"--project={request.project}")

    @property
    def zone(self) -> str:
        """Zone of the request."""
        return self._request.zone

    def check(self) -> None:
        """Check that the zone has such slices, and that the name is free.

        Raises:
          LaunchError: when not.
        """
        wanted, zone = self._request.accelerator, self._request.zone
        result = self._commands.run(
            *("gcloud", "compute", "tpus", "accelerator-types", "describe", wanted), *self._place
        )
        if result.returncode:
            raise LaunchError(
                f"zone {zone} does not offer {wanted} ({cause(result.stderr)}): "
                f"`gcloud compute tpus accelerator-types list --zone={zone}` shows what it has"
            )
        if self._commands.dry_run:
            return
        if state := self.state():
            raise LaunchError(
                f"queued resource {self._request.name} exists already ({state}): give another "
                f"--name, or delete it with `{self._delete_command()}`"
            )

    def create(self) -> None:
        """Request the machines.

        Raises:
          UnavailableError: when the cloud refuses; states the quota if that is the reason.
        """
        request = self._request
        nodes = [f"--node-id={request.name}"]
        if request.slices > 1:
            nodes = [f"--node-count={request.slices}", f"--node-prefix={request.name}"]
        capacity = [] if request.capacity == "on-demand" else [f"--{request.capacity}"]
        result = self._commands.run(
            *self._gcloud("create"),
            *nodes,
            f"--accelerator-type={request.accelerator}",
            f"--runtime-version={request.runtime}",
            "--labels=started-by=lidit",
            *capacity,
        )
        if not result.returncode:
            return
        reason = cause(result.stderr)
        if "quota" in result.stderr.lower():
            raise UnavailableError(
                f"no quota for {request.accelerator} ({request.capacity}) in {request.zone}: "
                f"{reason}; ask for it at https://console.cloud.google.com/iam-admin/quotas"
            )
        raise UnavailableError(f"cannot create {request.name} in {request.zone}: {reason}")

    def wait_until_active(self, minutes: float | None = None) -> None:
        """Wait until the machines run; waiting in the queue costs nothing.

        Args:
          minutes: how long to wait; None for as long as it takes.

        Raises:
          UnavailableError: when the request failed, or the time is over.
          PreemptedError: when the machines came and went.
        """
        limit = "" if minutes is None else f" for up to {minutes:g} minutes"
        self._commands.say(f"waiting{limit} for the state ACTIVE")
        before, end = "", None if minutes is None else time.monotonic() + 60 * minutes
        while True:
            state = self._state_with_patience()
            if state != before:
                self._commands.say(f"{self._request.name}: {state}")
            if state == "ACTIVE" or self._commands.dry_run:
                return
            if state == "FAILED" or not state:
                raise UnavailableError(
                    f"the request for {self._request.accelerator} in {self._request.zone} failed: "
                    "try another zone, or --capacity=on-demand or reserved"
                )
            if state in _GONE:
                raise PreemptedError
            if end is not None and time.monotonic() >= end:
                raise UnavailableError(
                    f"no {self._request.accelerator} in {self._request.zone} within "
                    f"{minutes:g} minutes"
                )
            before = state
            self._commands.pause(self._poll)

    def state(self) -> str:
        """Return the cloud's name of the state; empty when there is no such resource.

        Raises:
          LaunchError: when the cloud does not answer.
        """
        result = self._commands.run(
            *self._gcloud("describe"), "--format=value(state.state)", quiet=True
        )
        if not result.returncode:
            return result.stdout.strip()
        if _not_found(result.stderr):
            return ""
        raise LaunchError(f"gcloud does not answer: {cause(result.stderr)}")

    def copy(self, source: Path) -> None:
        """Copy a file into the home folder of every worker of every slice."""
        self._repeat(
            *self._gcloud("scp", str(source), f"{self._request.name}:"),
            *("--node=all", "--worker=all", "--batch-size=all"),
        )

    def everywhere(self, command: str) -> None:
        """Run a command that may be repeated on every worker of every slice."""
        self._repeat(*self._ssh("all"), f"--command={command}")

    def follow(self, command: str) -> int:
        """Run a command on every worker at the same time and show the output."""
        return self._commands.stream(*self._ssh("all"), f"--command={command}")

    def ask_first_worker(self, command: str) -> str | None:
        """Return the output of a command on worker 0 of slice 0; None if it cannot be reached."""
        result = self._commands.run(*self._ssh("0"), f"--command={command}", quiet=True)
        return None if result.returncode else result.stdout.strip()

    def is_active(self) -> bool:
        """Return whether the machines still belong to this request."""
        return self._commands.dry_run or self._state_with_patience() == "ACTIVE"

    def delete(self) -> None:
        """Delete the machines, with several attempts; a resource that is absent is no error.

        Raises:
          LaunchError: when it may still be there; the message has the command that deletes it.
        """
        reason = ""
        for _ in range(_TRIES):
            result = self._commands.run(*self._gcloud("delete"), "--force", "--quiet")
            if not result.returncode or _not_found(result.stderr):
                return
            reason = cause(result.stderr)
            self._commands.pause(self._poll)
        raise LaunchError(
            f"{self._request.name} could not be deleted and may cost money "
            f"({reason}): run `{self._delete_command()}`"
        )

    def _repeat(self, *command: str) -> None:
        """Run a command over the workers' network, repeated while the machines are active."""
        reason = ""
        for _ in range(_TRIES):
            result = self._commands.run(*command)
            if not result.returncode:
                return
            if not self.is_active():
                raise PreemptedError
            reason = cause(result.stderr)
            self._commands.say(f"failed, and will be repeated: {reason}")
            self._commands.pause(self._poll)
        raise LaunchError(f"`{shlex.join(command)[:160]}` failed {_TRIES} times: {reason}")

    def _state_with_patience(self) -> str:
        for left in reversed(range(_TRIES)):
            try:
                return self.state()
            except LaunchError:
                if not left:
                    raise
                self._commands.pause(self._poll)
        raise AssertionError("unreachable")

    def _ssh(self, which: str) -> list[str]:
        # With the default batch of 64 workers, larger slices would wait forever for the others.
        batch = ["--batch-size=all"] if which == "all" else []
        return [*self._gcloud("ssh"), f"--node={which}", f"--worker={which}", *batch]

    def _gcloud(self, verb: str, *operands: str) -> list[str]:
        operands = operands or (self._request.name,)
        return ["gcloud", "compute", "tpus", "queued-resources", verb, *operands, *self._place]

    def _delete_command(self) -> str:
        return shlex.join([*self._gcloud("delete"), "--force", "--quiet"])


def _not_found(errors: str) -> bool:
    return "NOT_FOUND" in errors or "not found" in errors.lower()
