"""Execution of other programs: printed first, stopped cleanly, or only printed (`--dry-run`)."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO


class LaunchError(Exception):
    """Mistake or failure that the user can fix: one line with the cause and the remedy."""


class Commands:
    """Runs and prints programs, or with `dry_run` only prints them."""

    def __init__(self, dry_run: bool = False):
        """With `dry_run`, every program counts as successful, without output."""
        self.dry_run = dry_run
        self._interrupted = self._listening = self._deaf = False

    def require(self, program: str, remedy: str) -> None:
        """Check that a program is installed.

        Raises:
          LaunchError: when it is not on PATH.
        """
        if not self.dry_run and shutil.which(program) is None:
            raise LaunchError(f"{program} is not installed: {remedy}")

    def say(self, text: str) -> None:
        """Print a status line."""
        print(f"# {text}", flush=True)

    def show(self, name: str, content: str) -> None:
        """Print a file that is input to another program, under `dry_run`."""
        if self.dry_run:
            print(f"# ---- {name}\n{content.rstrip()}\n# ----", flush=True)

    def run(
        self, *command: str, stdin: Path | None = None, quiet: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and return status, output and errors.

        Ctrl-C does not reach it: an interrupted request to a cloud may have been granted. The
        interrupt is raised when the program has ended.
        """
        self._hear()
        if not quiet or self.dry_run:
            self._print(command, stdin)
        if self.dry_run:
            return subprocess.CompletedProcess(command, 0, "", "")
        with contextlib.ExitStack() as stack:
            source: BinaryIO | int = subprocess.DEVNULL
            if stdin:
                source = stack.enter_context(stdin.open("rb"))
            process = _start(
                command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            out, errors = process.communicate()
        self._hear()
        return subprocess.CompletedProcess(command, process.returncode, out, errors)

    def stream(self, *command: str, stdin: Path | None = None) -> int:
        """Run a program, show its output as it comes, and return its status; Ctrl-C stops it."""
        self._print(command, stdin)
        if self.dry_run:
            return 0
        with contextlib.ExitStack() as stack:
            source: BinaryIO | int = subprocess.DEVNULL
            if stdin:
                source = stack.enter_context(stdin.open("rb"))
            self._hear()
            process = _start(command, stdin=source)
            try:
                with self._interruptible():
                    return process.wait()
            except KeyboardInterrupt:
                process.terminate()
                process.wait()
                raise

    def pause(self, seconds: float) -> None:
        """Wait, except under `dry_run`; Ctrl-C ends the wait."""
        if not self.dry_run:
            with self._interruptible():
                time.sleep(seconds)

    @contextlib.contextmanager
    def one_interrupt(self) -> Iterator[None]:
        """Raise KeyboardInterrupt for the first Ctrl-C, SIGTERM or hang-up; ignore later ones.

        So rented machines are deleted even after repeated Ctrl-C. It is raised only by the methods
        above: elsewhere, it could leave a started program behind.
        """
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

        def interrupt(*_: object) -> None:
            for number in numbers:
                signal.signal(number, signal.SIG_IGN)
            print("# stopping, after deleting what was started", file=sys.stderr, flush=True)
            self._interrupted = True
            if self._listening:
                self._hear()

        previous = {number: signal.signal(number, interrupt) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Delay Ctrl-C until the block, which deletes rented machines, has ended."""
        self._deaf = True
        try:
            yield
        finally:
            self._deaf = False
        self._hear()

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        self._listening = True
        try:
            self._hear()
            yield
        finally:
            self._listening = False

    def _hear(self) -> None:
        """Raise the pending interrupt, once."""
        if self._interrupted and not self._deaf:
            self._interrupted = False
            raise KeyboardInterrupt

    def _print(self, command: Sequence[str], stdin: Path | None) -> None:
        line = shlex.join(command) + (f" < {shlex.quote(str(stdin))}" if stdin else "")
        print(line if self.dry_run else f"+ {line}", flush=True)


def _start(command: Sequence[str], **streams: Any) -> subprocess.Popen:
    """Start a process that the terminal's Ctrl-C does not reach."""
    try:
        return subprocess.Popen(command, start_new_session=True, **streams)
    except FileNotFoundError:
        raise LaunchError(f"{command[0]} is not installed here") from None


def cause(text: str) -> str:
    """Return the most informative line of a program's errors: gcloud's "ERROR: …", else the last.

    After this line gcloud prints several lines of advice.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [line for line in lines if line.startswith("ERROR:")] or lines
    return lines[-1][:300] if lines else "no message"
