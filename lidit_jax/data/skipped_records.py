"""Records that training could not read and went on without: counted, listed, and bounded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file, writable_folder

_FIRST = 1000
"""Records that are taken for read at the least, so that one bad one at the start ends nothing."""
_GROWTH = 1.1
"""The list is written anew once it is longer by this factor, or the reader is closed."""


class Skipped(NamedTuple):
    """A record in whose place another one was read."""

    record: int
    """Its number."""
    source: str
    shard: str
    key: str
    kind: str
    """Field of `ReadingSettings` that says to skip it: "damaged" and so on."""
    message: str


class SkippedRecords:
    """The records that this process has skipped, each of them once."""

    def __init__(self, file: Path, records: int, most: float, read: int = 0):
        """Goes on with the list of an earlier start.

        Args:
          file: where to list them, a line of JSON each; it may lie in a bucket.
          records: how many the set has.
          most: share of the records read, or of all where they are fewer, that may be skipped.
          read: records that this process has read in earlier starts.
        """
        self._file, self._total, self._most, self._read = file, records, most, read
        self._listed = {row.record: row for row in _read(file)}
        self._written = len(self._listed)

    def __len__(self) -> int:
        return len(self._listed)

    def add(self, skipped: Sequence[Skipped], read: int) -> None:
        """Counts those of a batch.

        Args:
          skipped: in the order in which they were tried.
          read: size of the batch.

        Raises:
          LiditError: when there are more than may be; names the newest, and the list.
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
        """Writes the list, if it has grown.

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
