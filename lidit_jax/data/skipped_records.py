"""Unreadable records skipped in training: counted, listed, and limited in number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file, writable_folder

_FIRST = 1000
"""Smallest assumed number of records read, so that one bad record at the start is allowed."""
_GROWTH = 1.1
"""The list is written again when it has grown by this factor, or the reader is closed."""


class Skipped(NamedTuple):
    """Record that was replaced by another one."""

    record: int
    """Record number."""
    source: str
    shard: str
    key: str
    kind: str
    """Field of `ReadingSettings` that allows skipping: "damaged" and so on."""
    message: str


class SkippedRecords:
    """Records skipped by this process, each listed once."""

    def __init__(self, file: Path, records: int, most: float, read: int = 0):
        """Continue the list of an earlier start.

        Args:
          file: JSON lines file for the list; it may be in a bucket.
          records: number of records in the data set.
          most: largest share skipped of the records read, or of all if these are fewer.
          read: number of records read by this process in earlier starts.
        """
        self._file, self._total, self._most, self._read = file, records, most, read
        self._listed = {row.record: row for row in _read(file)}
        self._written = len(self._listed)

    def __len__(self) -> int:
        return len(self._listed)

    def add(self, skipped: Sequence[Skipped], read: int) -> None:
        """Add the skipped records of a batch.

        Args:
          skipped: skipped records, in the order of the attempts.
          read: size of the batch.

        Raises:
          LiditError: when the limit is exceeded; states the newest, and the list's file.
        """
        self._read += read
        self._listed |= {row.record: row for row in skipped if row.record not in self._listed}
        if len(self) > self._written * _GROWTH:
            self.write()
        base = min(self._total, max(self._read, _FIRST))
        if skipped and len(self) > self._most * base:
            self.write()
            raise LiditError(
                f"{len(self)} of {base} records cannot be read, more than "
                f"skipped_fraction={self._most:g}: mend them, or allow more; {self._file} lists "
                f"them, at last: {skipped[-1].message}"
            )

    def write(self) -> None:
        """Write the list, if it has grown.

        Raises:
          LiditError: when its folder cannot be written.
        """
        if len(self) == self._written:
            return
        lines = [json.dumps(row._asdict()) for row in self._listed.values()]
        with writable_folder(self._file.parent, "skipped records"), atomic_file(self._file) as out:
            out.write("".join(f"{line}\n" for line in lines).encode())
        self._written = len(self)


def _read(file: Path) -> list[Skipped]:
    try:
        lines = file.read_bytes().splitlines()
        return [Skipped(**json.loads(line)) for line in lines]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise LiditError(f"{file} is damaged ({error}): delete it") from error
