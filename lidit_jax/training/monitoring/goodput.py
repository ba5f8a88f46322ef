"""Goodput: the share of a run's wall time, restarts included, spent on steps that were kept.

Each log record has the seconds that its steps took (`productive_seconds`), without the time spent
on compiling, waiting for data, validation, images and checkpoints. Steps after the checkpoint from
which a run resumes are repeated, so they do not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class _Window(NamedTuple):
    """Steps (start, stop] and the seconds that they took."""

    start: int
    stop: int
    seconds: float

    def until(self, step: int) -> _Window:
        """Return the part up to a step."""
        stop = max(min(self.stop, step), self.start)
        return _Window(self.start, stop, self.seconds * (stop - self.start) / self._length)

    @property
    def _length(self) -> int:
        return max(self.stop - self.start, 1)


class Goodput:
    """Goodput counter that includes the records of earlier starts."""

    def __init__(self, earlier: Iterable[dict[str, Any]], first_step: int, begun: float):
        """Read the history of a run.

        Args:
          earlier: the lines of `metrics.jsonl`, oldest first. A line with `started` (seconds since
            1970) marks a start of the run at its `step`; one with `productive_seconds` closes
            `steps` steps.
          first_step: step from which the run resumes now.
          begun: time of this start, in seconds since 1970.
        """
        windows: list[_Window] = []
        self._begun = begun
        for record in earlier:
            if "started" in record:
                windows = [window.until(record["step"]) for window in windows]
                self._begun = min(self._begun, record["started"])
            elif "productive_seconds" in record:
                stop = record["step"]
                windows.append(_Window(stop - record["steps"], stop, record["productive_seconds"]))
        self._productive = sum(window.until(first_step).seconds for window in windows)

    def add(self, seconds: float) -> None:
        """Add productive seconds of this start."""
        self._productive += seconds

    def fraction(self, now: float) -> float:
        """Return the goodput, 0 to 1, at a time in seconds since 1970."""
        return min(self._productive / max(now - self._begun, 1e-9), 1.0)
