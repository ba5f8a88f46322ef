"""Unreadable records skipped or repaired in training: counted, listed, and limited in number."""

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


REPAIRED = "repaired"
"""Kind of the records whose image was decoded as far as its data go."""


class Skipped(NamedTuple):
    """Record that was replaced by another one, or whose image was repaired."""

    record: int
    """Record number."""
    source: str
    shard: str
    key: str
    kind: str
    """Field of `ReadingSettings` that allows skipping: "damaged" and so on; or `REPAIRED`."""
    message: str

    @property
    def outcome(self) -> str:
        """The message, and what was done."""
        replaced = "" if self.kind == REPAIRED else ": another record stands in for it"
        return f"{self.message}{replaced}"


class SkippedRecords:
    """Records skipped or repaired by this process, each listed once."""

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
        self._new = 0
        self.repaired = sum(row.kind == REPAIRED for row in self._listed.values())
        """Number of repaired records, which are not skipped ones."""

    def __len__(self) -> int:
        return len(self._listed) - self.repaired

    def add(self, skipped: Sequence[Skipped], read: int) -> None:
        """Add the skipped and repaired records of a batch.

        Args:
          skipped: skipped and repaired records, in the order of the attempts.
          read: size of the batch.

        Raises:
          LiditError: when the limit is exceeded; states the newest, and the list's file.
        """
        self._read += read
        for row in skipped:
            self._list(row)
        if len(self._listed) > (len(self._listed) - self._new) * _GROWTH:
            self.write()
        base = min(self._total, max(self._read, _FIRST))
        lost = [row for row in skipped if row.kind != REPAIRED]
        if lost and len(self) > self._most * base:
            self.write()
            raise LiditError(
                f"{len(self)} of {base} records cannot be read, more than "
                f"skipped_fraction={self._most:g}: mend them, or allow more; {self._file} lists "
                f"them, at last: {lost[-1].message}"
            )

    def write(self) -> None:
        """Write the list, if it has grown.

        Raises:
          LiditError: when its folder cannot be written.
        """
        if not self._new:
            return
        lines = [json.dumps(row._asdict()) for row in self._listed.values()]
        with writable_folder(self._file.parent, "skipped records"), atomic_file(self._file) as out:
            out.write("".join(f"{line}\n" for line in lines).encode())
        self._new = 0

    def _list(self, row: Skipped) -> None:
        """List a record; one that an earlier start had to skip may now be repaired."""
        before = self._listed.get(row.record)
        if before is None or before.kind != row.kind:
            self.repaired += (row.kind == REPAIRED) - (
                before is not None and before.kind == REPAIRED
            )
            self._listed[row.record] = row
            self._new += 1


def _read(file: Path) -> list[Skipped]:
    try:
        lines = file.read_bytes().splitlines()
        return [Skipped(**json.loads(line)) for line in lines]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise LiditError(f"{file} is damaged ({error}): delete it") from error
