"""Single records of ArrayRecord files, of this machine and of buckets."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lidit_jax.data.sources.kept_parts import KeptParts
from lidit_jax.errors import LiditError
from lidit_jax.io.files import Files
from lidit_jax.io.output import atomic_file
from lidit_jax.io.paths import cache_dir

_OPEN_FILES = 64
_RANDOM = "readahead_buffer_size:0,max_parallelism:0"
_BATCH = 2**23
"""Bytes that a scan asks for at a time, by the mean size of a record; at most 256 records."""


class RecordFiles:
    """The records of ArrayRecord files by their numbers.

    `array_record` itself reads files of this machine and of gs://, with Google's application
    default credentials. It cannot read s3://: from there a file is copied whole, once, into the
    user's cache (`array_record/`).
    """

    def __init__(self, files: Files):
        """Opens nothing yet.

        Args:
          files: where they are.

        Raises:
          LiditError: when `array_record` is not installed.
        """
        if importlib.util.find_spec("array_record") is None:
            raise LiditError(
                f"{files.root} needs array_record: pip install 'lidit-jax[array_record]'"
            )
        self.files = files
        self._readers = KeptParts[Any](_OPEN_FILES, lambda reader: 1)

    def __reduce__(self) -> tuple[type[RecordFiles], tuple[Files]]:
        return RecordFiles, (self.files,)

    def count(self, name: str) -> int:
        """How many records a file has. Raises `LiditError` when it is none, or damaged."""
        return self._reader(name).num_records()

    def read(self, name: str, number: int) -> bytes:
        """One record. Raises `LiditError` when it is not there or damaged."""
        reader = self._reader(name)
        if not 0 <= number < reader.num_records():
            raise LiditError(f"{self.files.named(name)} has no record {number}: index it again")
        with _told(self.files.named(name)):
            return reader.read([number])[0]

    def scan(self, name: str) -> Iterator[bytes]:
        """All records of a file, in order. Raises `LiditError` when it is none, or damaged."""
        with _told(self.files.named(name)):
            reader = _open(self._path(name), "")
            try:
                count = reader.num_records()
                size = int(self.files.version(name).partition("-")[0])
                step = max(1, min(256, _BATCH * count // max(size, 1)))
                for start in range(0, count, step):
                    yield from reader.read(start, min(start + step, count))
            finally:
                reader.close()

    def _reader(self, name: str) -> Any:
        with _told(self.files.named(name)):
            return self._readers.get(name, lambda: _open(self._path(name), _RANDOM))

    def _path(self, name: str) -> str:
        """What `array_record` opens."""
        named = self.files.named(name)
        if named.startswith("gs://"):
            # Its client tries for a quarter of an hour what fsspec's says at once.
            self.files.version(name)
            return named
        if "://" not in named:
            return named
        version = self.files.version(name)
        digest = hashlib.sha256(f"{named}\n{version}".encode()).hexdigest()[:16]
        copy = cache_dir() / "array_record" / f"{digest}-{os.path.basename(name)}"
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            with self.files.stream(name) as stream, atomic_file(copy) as file:
                while block := stream.read(2**23):
                    file.write(block)
        return os.fspath(copy)


def _open(path: str, options: str) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(path, options) if options else ArrayRecordReader(path)
    if not reader.ok():
        # The reason is told by the exception of its first call.
        reader.read([0])
    return reader


@contextmanager
def _told(named: str) -> Iterator[None]:
    """Makes one line of what `array_record` raises."""
    try:
        yield
    except LiditError:
        raise
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise LiditError(
            f"{named} is no ArrayRecord file, or is cut off or damaged: copy or write it again "
            f"({reason})"
        ) from error
