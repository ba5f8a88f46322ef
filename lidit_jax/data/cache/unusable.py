"""Records that cannot be cached: refused, or listed and limited in number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lidit_jax.config.data_settings import ReadingSettings
from lidit_jax.data.record_reading import UnusableRecordError
from lidit_jax.data.skipped_records import REPAIRED, Skipped
from lidit_jax.data.streamed_source import StreamedSource
from lidit_jax.errors import LiditError

_FIRST = 1000
"""Smallest assumed number of records read, so that one bad record at the start is allowed."""


class UnusableRecords:
    """Counter of the unusable records that this process has met since its start."""

    def __init__(self, sources: Sequence[StreamedSource], reading: ReadingSettings):
        """Set the rules.

        Args:
          sources: all sources of the run.
          reading: handling of records that cannot be read.
        """
        self._sources, self._reading = sources, reading
        self._first = np.cumsum([0, *(len(source.index) for source in sources)])
        self._count = self._read = 0
        self._last = (-1, -1)

    def read(self, records: int) -> None:
        """Count records that were read, usable or not."""
        self._read += records

    def row(self, source: int, own: int, error: UnusableRecordError) -> Skipped:
        """Count an unusable record, and return its row for the list.

        Args:
          source: number of its source.
          own: number of the record in its source.
          error: why it cannot be used.

        Raises:
          LiditError: when such records may not be skipped, or are too many.
        """
        if getattr(self._reading, error.kind) == "fail":
            raise error.refusal() from error
        if (source, own) != self._last:  # several captions of a record count once
            self._last = source, own
            self._count += 1
        most, base = self._reading.skipped_fraction, max(self._read, _FIRST)
        base = min(base, int(self._first[-1]))
        if self._count > most * base:
            raise LiditError(
                f"{self._count} of {base} records cannot be read, more than "
                f"config.data.reading.skipped_fraction={most:g}: mend them, or allow more; the "
                f"last: {error}"
            )
        return self._row(source, own, error.kind, error.message)

    def repaired(self, source: int, own: int, message: str) -> Skipped:
        """Return the row of a record whose image was repaired; it is not counted.

        Args:
          source: number of its source.
          own: number of the record in its source.
          message: what was repaired.
        """
        return self._row(source, own, REPAIRED, message)

    def _row(self, source: int, own: int, kind: str, message: str) -> Skipped:
        opened = self._sources[source]
        place, number = opened.index.place(own), int(self._first[source]) + own
        return Skipped(number, repr(opened.records), place.shard, place.key, kind, message)
