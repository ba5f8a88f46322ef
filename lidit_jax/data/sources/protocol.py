"""Interface of every format: scan a shard, read a single record.

A source is scanned once, shard by shard, into an index (`lidit_jax.data.index`). Afterward single
records are read, in any order, by the places in the index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple, Protocol, runtime_checkable

CAPTION = "caption"
"""Name of the caption column in formats without named captions."""


class Shard(NamedTuple):
    """Part of a source that is scanned separately: a file, or some files of a folder."""

    name: str
    """Name, unique in the source, independent of its location: paths are relative to its root."""
    version: str
    """Text that changes when the shard may have changed: a file's size and time, or an ETag."""


class Place(NamedTuple):
    """Location of a record."""

    shard: str
    """Name of the shard."""
    key: str
    """Name of the record, unique in its source."""
    offset: int
    """Start of the record in the shard: bytes of a file, or rows of a table."""
    length: int
    """Length in bytes; 0 if the format needs none."""


class ScannedRecord(NamedTuple):
    """Scanned metadata of a record; its image is not decoded."""

    key: str
    offset: int
    length: int
    open_image: Callable[[], BinaryIO]
    """Opens the image's encoded file; valid until the scan goes on. Raises `LiditError` or
    `OSError` when it cannot be opened."""
    captions: Mapping[str, str]
    """Caption by column, not yet cleaned; columns that the record lacks are excluded."""
    numbers: Mapping[str, float] = {}
    """Numeric columns of the record: scores of aesthetics, similarity and so on."""
    problem: str = ""
    """Why the record cannot be used, if its format is invalid; states the remedy."""


class Record(NamedTuple):
    """Image and captions of a record."""

    image: bytes
    """Encoded file of the image: JPEG, PNG and so on."""
    captions: Mapping[str, str]
    """Caption by column, not yet cleaned."""


@runtime_checkable
class RecordSource(Protocol):
    """Captioned images in one format. Opening a source reads names, never records.

    Implementations can be pickled, so that processes and Beam workers can scan and read them, and
    open files anew in each process and on first use.
    """

    def shards(self) -> Sequence[Shard]:
        """Return all shards, in the order of their names.

        Raises:
          LiditError: when there is none, or they cannot be listed.
        """
        ...

    def scan(self, shard: Shard) -> Iterator[ScannedRecord]:
        """Yield the records of a shard, in order.

        Raises:
          LiditError: when the shard is not of this format, or is truncated; states its name.
            Problems of a single record are in its `problem` instead.
        """
        ...

    def read(self, place: Place) -> Record:
        """Read one record.

        Raises:
          LiditError: when it is no longer there; states the shard and the record.
        """
        ...

    def __repr__(self) -> str:
        """Return format and path, as for `lidit data index`: "webdataset:gs://bucket/photos"."""
        ...


@runtime_checkable
class CaptionSource(Protocol):
    """Record source that can leave out images, which takes less time."""

    def read_captions(self, place: Place) -> Mapping[str, str]:
        """Return the captions of one record, as in `RecordSource.read`.

        Raises:
          LiditError: when it is no longer there; states the shard and the record.
        """
        ...
