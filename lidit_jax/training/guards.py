"""Guards of a run: skipped non-finite updates, silent host transfers, and hanging steps."""

from __future__ import annotations

import collections
import faulthandler
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lidit_jax.errors import LiditError

_STEPS_LATE = 8


@contextmanager
def guarded_step(step: int) -> Iterator[None]:
    """Names a step in profiles, and forbids silent transfers between host and devices in it.

    A NumPy array among the arguments of the compiled step would be copied at every call, and a
    value that is read would make the host wait; JAX raises instead. What is asked for in so many
    words, as `jax.device_put` and `jax.device_get`, goes on.

    Args:
      step: number of the update.
    """
    with (
        jax.profiler.StepTraceAnnotation("train", step_num=step),
        jax.transfer_guard_host_to_device("disallow"),
        jax.transfer_guard_device_to_host("disallow"),
    ):
        yield


class SkippedUpdates:
    """Counter of skipped updates, read some steps late so that no step waits for the host.

    It does not protect the weights: the compiled step skips updates that are not finite.
    """

    def __init__(self, limit: int):
        """Set the number of skipped updates in a row that stops a run."""
        self._limit, self._in_a_row = limit, 0
        self._pending: collections.deque[tuple[int, jax.Array, Any]] = collections.deque()
        self.total = 0
        """Number of updates skipped so far."""

    def watch(self, step: int, applied: jax.Array, records: Any) -> None:
        """Queue one step, and read those that must have finished.

        Args:
          step: number of the update.
          applied: 1 on the device when it was applied.
          records: indices of this process's records in the batch.

        Raises:
          LiditError: after `limit` skipped updates in a row; names step and records.
        """
        self._pending.append((step, applied, records))
        if len(self._pending) > _STEPS_LATE:
            self._read()

    def drain(self) -> None:
        """Read all queued steps, waiting for the last one. Raises as `watch` does."""
        while self._pending:
            self._read()

    def _read(self) -> None:
        step, applied, records = self._pending.popleft()
        if float(applied):
            self._in_a_row = 0
            return
        self.total += 1
        self._in_a_row += 1
        shown = ", ".join(map(str, np.asarray(records).reshape(-1)[:8].tolist()))
        where = f"step {step} (records {shown}, ...)"
        print(f"{where}: loss or gradient is not finite; this update was left out", flush=True)
        if self._in_a_row >= self._limit:
            raise LiditError(
                f"{self._in_a_row} updates in a row were not finite, the last at {where}: lower "
                "config.optimizer.learning_rate or look at these records; the weights and "
                "checkpoints are intact"
            )


_SIDECAR = Path("/tmp/debugging")
"""Folder that a sidecar of XPK on GKE sends to Cloud Logging."""


class Watchdog:
    """Watchdog that dumps the stacks of all threads when a step takes too long.

    It writes to standard error, or to the folder of XPK's sidecar if it exists.
    """

    def __init__(self, minutes: float):
        """Set the limit in minutes; with 0, or with nowhere to write, it does nothing."""
        self._seconds, self._file = 60.0 * minutes, sys.__stderr__

    def __enter__(self) -> Watchdog:
        if self._seconds and _SIDECAR.is_dir():
            self._file = (_SIDECAR / f"lidit-{os.getpid()}").open("w")
        return self

    def step(self) -> None:
        """Restart the timer at the beginning of a step."""
        if self._seconds and self._file is not None:
            faulthandler.dump_traceback_later(self._seconds, repeat=True, file=self._file)

    def __exit__(self, *_: object) -> None:
        if self._seconds:
            faulthandler.cancel_dump_traceback_later()
        if self._file is not None and self._file is not sys.__stderr__:
            self._file.close()
