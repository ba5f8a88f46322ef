"""Random access to records of ArrayRecord files, local or in buckets."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lidit_jax.data.sources.kept_parts import KeptParts
from lidit_jax.errors import LiditError
from lidit_jax.io.files import Files
from lidit_jax.io.output import atomic_file, atomic_path
from lidit_jax.io.paths import cache_dir

_OPEN_FILES = 64
_RANDOM = "readahead_buffer_size:0,max_parallelism:0"
_BATCH = 2**23
"""Bytes per read of a scan, estimated by the mean record size; at most 256 records."""


class RecordFiles:
    """Records of ArrayRecord files, by number.

    `array_record` itself reads files of this machine and of gs://, with Google's application
    default credentials. It cannot read s3://: from there a file is copied whole, once, into the
    user's cache (`array_record/`).
    """

    def __init__(self, files: Files):
        """Set the folder; no file is opened yet.

        Args:
          files: files of the folder.

        Raises:
          LiditError: when `array_record` is not installed.
        """
        if importlib.util.find_spec("array_record") is None:
            raise LiditError(f"{files.root} needs array_record: pip install array_record")
        self.files = files
        self._readers = KeptParts[Any](_OPEN_FILES, lambda reader: 1)

    def __reduce__(self) -> tuple[type[RecordFiles], tuple[Files]]:
        return RecordFiles, (self.files,)

    def count(self, name: str) -> int:
        """Return a file's number of records. Raises `LiditError` when it is invalid or damaged."""
        return self._reader(name).num_records()

    def read(self, name: str, number: int) -> bytes:
        """Read one record. Raises `LiditError` when it is not there or damaged."""
        reader = self._reader(name)
        if not 0 <= number < reader.num_records():
            raise LiditError(f"{self.files.named(name)} has no record {number}: index it again")
        with _explain_errors(self.files.named(name)):
            return reader.read([number])[0]

    def scan(self, name: str) -> Iterator[bytes]:
        """Yield all records of a file. Raises `LiditError` when the file is invalid or damaged."""
        with _explain_errors(self.files.named(name)):
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
        with _explain_errors(self.files.named(name)):
            return self._readers.get(name, lambda: _open(self._path(name), _RANDOM))

    def _path(self, name: str) -> str:
        """Return the path to open with `array_record`."""
        named = self.files.named(name)
        if named.startswith("gs://"):
            # Its client retries for 15 minutes where fsspec fails at once.
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


def write_record_file(path: Path, records: Iterable[bytes]) -> int:
    """Write an ArrayRecord file that appears when complete; return the number of records.

    Equal records give equal bytes.

    Args:
      path: of this machine or in a bucket.
      records: content of each record, written as they come.

    Raises:
      LiditError: when the file cannot be written, as on a full disk.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    count = 0
    with atomic_path(path) as file:
        # Images are already compressed; groups of one record allow single reads.
        writer = ArrayRecordWriter(os.fspath(file), "group_size:1,uncompressed")
        try:
            for record in records:
                with _explain_writing(path):
                    writer.write(record)
                count += 1
        except BaseException:
            with suppress(RuntimeError):
                writer.close()
            raise
        with _explain_writing(path):
            writer.close()
    return count


@contextmanager
def _explain_writing(path: Path) -> Iterator[None]:
    """Convert exceptions of the writer to one-line errors."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition(";")[0][:200]
        raise LiditError(
            f"cannot write {path} ({reason}): make room, or name another place"
        ) from error


def _open(path: str, options: str) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(path, options) if options else ArrayRecordReader(path)
    if not reader.ok():
        # The exception of the first call contains the reason.
        reader.read([0])
    return reader


@contextmanager
def _explain_errors(named: str) -> Iterator[None]:
    """Convert exceptions of `array_record` to one-line errors."""
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
