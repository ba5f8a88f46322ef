"""Which share of a run's wall time, restarts included, went into steps that still count.

Each report of the run says how many seconds its steps took (`productive_seconds`), without the time
spent on compiling, waiting for data, validation, pictures and checkpoints. Steps after the
checkpoint from which a run goes on are done anew, so they do not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class _Window(NamedTuple):
    """The steps (start, stop], and the seconds they took."""

    start: int
    stop: int
    seconds: float

    def until(self, step: int) -> _Window:
        """The part up to a step."""
        stop = max(min(self.stop, step), self.start)
        return _Window(self.start, stop, self.seconds * (stop - self.start) / self._length)

    @property
    def _length(self) -> int:
        return max(self.stop - self.start, 1)


class Goodput:
    """Adds up productive seconds, going on from what earlier starts have recorded."""

    def __init__(self, earlier: Iterable[dict[str, Any]], first_step: int, begun: float):
        """Reads the history of a run.

        Args:
          earlier: the lines of `metrics.jsonl`, oldest first. A line with `started` (seconds since
            1970) marks a start of the run at its `step`; one with `productive_seconds` closes
            `steps` steps.
          first_step: from which the run goes on now.
          begun: when this start began, in seconds since 1970.
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
        """Counts the steps of this start."""
        self._productive += seconds

    def fraction(self, now: float) -> float:
        """The goodput at a time, in seconds since 1970: 0 to 1."""
        return min(self._productive / max(now - self._begun, 1e-9), 1.0)
