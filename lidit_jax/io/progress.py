"""Progress bar with remaining time; plain lines if the output is not a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import rich.progress

from lidit_jax.io.console import NoWrapConsole

_SECONDS = 2.0
"""Least time between plain lines of work in progress, so that logs stay short."""
_ESTIMATED = 10.0
"""Seconds of work after which plain lines state the remaining time."""


class Progress:
    """Progress callback; this base class shows nothing."""

    def __call__(self, done: int, total: int) -> None:
        """Report that `done` of `total` units are complete."""

    def note(self, text: str) -> None:
        """Report the current activity, such as compilation."""


class SubtaskProgress(Progress):
    """Progress of one of several equal parts, reported as a share of the whole."""

    def __init__(self, whole: Progress, piece: int, pieces: int):
        """Initialize for part `piece`, counted from 0, of `pieces`."""
        self._whole, self._piece, self._pieces = whole, piece, pieces

    def __call__(self, done: int, total: int) -> None:
        """Report the progress of this part."""
        self._whole(self._piece * total + done, self._pieces * total)

    def note(self, text: str) -> None:
        """Report the current activity of this part."""
        self._whole.note(text)


class SlowProgress(Progress):
    """Passes on little: nothing of quick work, then news every two seconds, and the last report."""

    def __init__(self, whole: Progress):
        """Begins to count the time."""
        self._whole, self._when = whole, time.monotonic()
        self._told: tuple[int, int] | None = None

    def __call__(self, done: int, total: int) -> None:
        """Takes how much is done, and of how much."""
        now = time.monotonic()
        due = now - self._when >= _SECONDS or (self._told and done == total)
        if due and (done, total) != self._told:
            self._when, self._told = now, (done, total)
            self._whole(done, total)

    def note(self, text: str) -> None:
        """Takes what goes on until the next report."""
        self._whole.note(text)


class _Bar(Progress):
    def __init__(self, label: str, file: TextIO | None):
        self._label, self._console = label, NoWrapConsole(file=file)
        self._bar = bar_on(self._console)
        self._task: rich.progress.TaskID | None = None
        self._first: tuple[float, int] | None = None
        self._line_at: float | None = None

    def __call__(self, done: int, total: int) -> None:
        if self._task is None and done == total:
            return
        now = time.monotonic()
        self._first = begun, before = self._first or (now, done)
        line = f"{done}/{total}"
        if now - begun >= _ESTIMATED and before < done < total:
            line += f", {_duration((now - begun) * (total - done) / (done - before))} left"
        due = self._line_at is None or done == total or now - self._line_at >= _SECONDS
        if due:
            self._line_at = now
        self._show(self._label, line if due else None, completed=done, total=total)

    def note(self, text: str) -> None:
        self._show(f"{self._label}: {text}", text)

    def stop(self) -> None:
        self._bar.stop()

    def _show(
        self,
        description: str,
        line: str | None,
        completed: int | None = None,
        total: int | None = None,
    ) -> None:
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(description, total=None)
        self._bar.update(self._task, description=description, completed=completed, total=total)
        if line is not None and not self._console.is_terminal:
            print(f"{self._label}: {line}", file=self._console.file, flush=True)


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def bar_on(console: NoWrapConsole) -> rich.progress.Progress:
    """Return a bar with count and remaining time; it shows nothing without a terminal."""
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def progress_bar(label: str, file: TextIO | None = None) -> Iterator[Progress]:
    """Show a progress bar and yield its callback, called with (done, total).

    Nothing is shown for work that is already complete.

    Args:
      label: name of the work.
      file: output stream; None for standard output.
    """
    bar = _Bar(label, file)
    try:
        yield bar
    finally:
        bar.stop()


@contextmanager
def slow_progress_bar(label: str) -> Iterator[Progress]:
    """As `progress_bar`, for work that reports often and may be over at once: see `SlowProgress`.

    Args:
      label: what the work is.
    """
    with progress_bar(label) as bar:
        yield SlowProgress(bar)
