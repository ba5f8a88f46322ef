"""Square images of any indexed format, with random access: the training data of small runs."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt64

from lidit_jax.config.prompt_text import prompt_text
from lidit_jax.config.schema import Config
from lidit_jax.data.cache import content_key, writable_cache_folder
from lidit_jax.data.image_source import ImageSource, SourceKind
from lidit_jax.data.index.build import build_index
from lidit_jax.data.index.open import Index, is_index, open_index
from lidit_jax.data.sources.protocol import CAPTION, Record, RecordSource
from lidit_jax.data.sources.registry import FORMATS, open_records
from lidit_jax.errors import LiditError
from lidit_jax.io.image_files import read_fitted
from lidit_jax.io.paths import cache_dir, to_path
from lidit_jax.io.progress import slow_progress_bar

INDEX = "index"
"""Value of `config.data.source` for an index of any format."""
_HELD_OUT = 20
"""At most one record in so many is held out for the validation loss."""


class IndexedImages:
    """Records of an index as square images, decoded when they are read."""

    def __init__(
        self,
        index: Index,
        records: RecordSource,
        size: int,
        column: str,
        numbers: Int64[np.ndarray, " n"],
    ):
        """Bind records to a size.

        Args:
          index: index of the source.
          records: the source itself.
          size: side in pixels to which images are cropped and resized.
          column: caption column to read.
          numbers: records of the index to use, in this order.
        """
        self._index, self._records, self._size = index, records, size
        self._column, self._numbers = column, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return `{"image": uint8 [H, W, 3], "caption": str, "index": int}`.

        Raises:
          LiditError: when the record or its image cannot be read; names it.
        """
        named, content = self._read(index)
        side = self._size
        image = read_fitted(io.BytesIO(content.image), (side, side), named=named).image
        return {"image": image, "caption": self._clean(named, content), "index": int(index)}

    @property
    def distinct_captions(self) -> int:
        """Number of records: each may have its own caption."""
        return len(self)

    def caption(self, index: int) -> str:
        """Return the caption of a record, without decoding its image."""
        return self._clean(*self._read(index))

    def digests(self) -> UInt64[np.ndarray, "n 2"]:
        """Return digests of each record's key and of its image and captions."""
        both = np.stack([self._index.name, self._index.content], axis=1)
        return both[self._numbers].astype(np.uint64, copy=False)

    def __repr__(self) -> str:
        """Return a text with a digest of all records in their order."""
        content = hashlib.sha256(self.digests().astype("<u8").tobytes()).hexdigest()[:16]
        return f"IndexedImages(content={content!r}, size={self._size}, column={self._column!r})"

    def _read(self, index: int) -> tuple[str, Record]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        place = self._index.place(int(self._numbers[index]))
        return f"record {place.key} of {place.shard}", self._records.read(place)

    def _clean(self, named: str, content: Record) -> str:
        return prompt_text(f"{named}: {self._column}", content.captions.get(self._column, ""))


def open_indexed(config: Config, split: str) -> ImageSource:
    """Open the records of `config.data.path` in the format `config.data.source`, by an index.

    With `config.data.source` "index" the path is an index of `lidit data index`. Otherwise the
    source is scanned, and its index kept in the cache: a later start scans only shards that have
    changed.

    Up to `config.data.validation_records` records, and at most one in twenty, are held out: those
    with the smallest digests of their keys, whatever their order and place. Of fewer than twenty
    records one is in both splits.

    Raises:
      LiditError: when the source cannot be opened, or has no record that can be used.
    """
    data = config.data
    index, records = _opened(config)
    column = _caption_column(index, data.caption_column)
    chars = index.caption_chars[column]
    usable = np.flatnonzero((np.asarray(index.problem) == 0) & (np.asarray(chars) > 0))
    if not len(usable):
        raise LiditError(
            f"{index.source} has no record with an image and a caption in its column {column!r}: "
            f"see what is wrong with lidit data inspect {index.folder.parent}"
        )
    if split == "train" and len(usable) < len(index):
        left_out = len(index) - len(usable)
        print(f"{index.source}: {left_out} of {len(index)} records cannot be used", flush=True)
    count = min(data.validation_records, len(usable) // _HELD_OUT)
    by_key = usable[np.argsort(np.asarray(index.name)[usable], kind="stable")]
    held_out = np.sort(by_key[: max(count, 1)])
    # With so few records, training needs the held-out one too.
    train = usable if count == 0 else np.setdiff1d(usable, held_out)
    numbers = train if split == "train" else held_out
    return IndexedImages(index, records, data.image_size, column, numbers)


def _opened(config: Config) -> tuple[Index, RecordSource]:
    data = config.data
    if not data.path and data.source != "emoji":
        example = FORMATS[data.source].example if data.source in FORMATS else "index:photos-index"
        place = example.partition(":")[2]
        raise LiditError(f"config.data.path is empty: name what to read, such as {place}")
    if data.source == INDEX:
        index = open_index(to_path(data.path))
        return index, open_records(index.source)
    if data.path and is_index(data.path):
        raise LiditError(
            f"config.data.path={data.path!r} is an index: set config.data.source=index"
        )
    # The index is found again from any folder.
    path = os.path.abspath(data.path) if os.path.exists(data.path) else data.path
    source = f"{data.source}:{path}"
    folder = to_path(data.cache_dir) if data.cache_dir else cache_dir() / "data"
    return _build(source, folder, max(data.workers, 1))


def _build(source: str, folder: Path, processes: int) -> tuple[Index, RecordSource]:
    records = open_records(source)
    out = folder / content_key("index", {"source": source})
    with writable_cache_folder(out), slow_progress_bar("index") as progress:
        return build_index(records, out, processes=processes, progress=progress), records


def _caption_column(index: Index, wanted: str) -> str:
    """Return the caption column to read: the wanted one, "caption", or the only one."""
    columns = sorted(index.caption_chars)
    if wanted and wanted not in columns:
        raise LiditError(
            f"config.data.caption_column={wanted!r}: {index.source} has {', '.join(columns)}"
        )
    if wanted:
        return wanted
    if CAPTION in columns:
        return CAPTION
    if len(columns) == 1:
        return columns[0]
    raise LiditError(
        f"{index.source} has several caption columns: set config.data.caption_column to one of "
        f"{', '.join(columns)}"
        if columns
        else f"{index.source} has no captions: add some, or use another source"
    )


INDEXED: dict[str, SourceKind] = {
    name: SourceKind(open_indexed) for name in (INDEX, *FORMATS) if name != "folder"
}
"""Source kinds that are read by an index."""
