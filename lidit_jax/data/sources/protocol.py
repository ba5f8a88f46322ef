"""What every format of captioned images offers: a scan of each shard, and single records.

A source is scanned once, shard by shard, into an index (`lidit_jax.data.index`). From then on its
records are read one by one, in any order, by the places that the index holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple, Protocol, runtime_checkable

CAPTION = "caption"
"""Name of the caption column of formats whose captions have no name of their own."""


class Shard(NamedTuple):
    """A part of a source that is scanned on its own: a file, or some files of a folder."""

    name: str
    """Unique in the source, the same wherever the source lies: paths are relative to its root."""
    version: str
    """Changes when the shard may have changed: size and time of a file, the ETag of an object."""


class Place(NamedTuple):
    """Where a record is."""

    shard: str
    """Name of the shard."""
    key: str
    """Name of the record, unique in its source."""
    offset: int
    """Where the record begins in the shard: bytes of a file, or rows of a table."""
    length: int
    """How long it is there, in bytes; 0 where the format needs none."""


class ScannedRecord(NamedTuple):
    """What a scan tells of a record, without decoding its image."""

    key: str
    offset: int
    length: int
    open_image: Callable[[], BinaryIO]
    """Opens the image's encoded file; valid until the scan goes on. Raises `LiditError` or
    `OSError` when it cannot be opened."""
    captions: Mapping[str, str]
    """Caption by column, not yet cleaned; columns that the record lacks are left out."""
    numbers: Mapping[str, float] = {}
    """Numeric columns of the record: scores of aesthetics, similarity and so on."""
    problem: str = ""
    """Why the record cannot be used, where the format itself is at fault; names the remedy."""


class Record(NamedTuple):
    """One record, read by its place."""

    image: bytes
    """The image's encoded file: JPEG, PNG and so on."""
    captions: Mapping[str, str]
    """Caption by column, not yet cleaned."""


@runtime_checkable
class RecordSource(Protocol):
    """Captioned images in one format. Opening one reads names, never records.

    Implementations can be pickled, so that processes and Beam workers can scan and read them, and
    open files anew in each process and on first use.
    """

    def shards(self) -> Sequence[Shard]:
        """All shards, in the order of their names.

        Raises:
          LiditError: when there is none, or they cannot be listed.
        """
        ...

    def scan(self, shard: Shard) -> Iterator[ScannedRecord]:
        """The records of a shard, in their order.

        Raises:
          LiditError: when the shard is no file of this format, or is cut off; names it. What is
            wrong with a single record is its `problem` instead.
        """
        ...

    def read(self, place: Place) -> Record:
        """One record.

        Raises:
          LiditError: when it is no longer there; names the shard and the record.
        """
        ...

    def __repr__(self) -> str:
        """Format and path, as `lidit data index` takes them: "webdataset:gs://bucket/photos"."""
        ...
