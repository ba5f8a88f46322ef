"""Batch reader for streamed data: images decoded to one shape per batch, with captions.

A batch is a function of its number: records, shape, captions, crops, and the substitutes of
records that cannot be read. So it does not depend on what was read before, or by which process.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import grain.python as grain
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from lidit_jax.config.data_settings import (
    AugmentationSettings,
    CaptionSettings,
    FilterSettings,
    ReadingSettings,
)
from lidit_jax.config.prompt_text import prompt_text
from lidit_jax.data.augmentation import Augmentation, draw_augmentation
from lidit_jax.data.caption_choice import choose_columns
from lidit_jax.data.filters import CaptionUse, RecordColumns
from lidit_jax.data.order import Order
from lidit_jax.data.read_ahead import read_ahead
from lidit_jax.data.skipped_records import Skipped, SkippedRecords
from lidit_jax.data.sources.protocol import Place, RecordSource
from lidit_jax.errors import LiditError
from lidit_jax.io.image_crops import Box
from lidit_jax.io.image_files import UnreadableImageError, read_fitted

_ENDLESS = 2**62
"""Number of batches of a run, so that its data set has a length."""
_ATTEMPTS = 50
"""Number of substitutes tried for a record that cannot be read."""


@runtime_checkable
class RecordIndex(RecordColumns, Protocol):
    """Index: columns, and the place of each record."""

    def place(self, record: int) -> Place:
        """Return the place of a record."""
        ...


@dataclass(frozen=True)
class StreamedSource:
    """Source for training. It is sent to the reader processes."""

    index: RecordIndex
    records: RecordSource
    """Record source; several threads may read it at a time."""
    captions: CaptionSettings
    filters: FilterSettings
    """Filters used for `order`; they also determine the usable captions."""


class Batch(NamedTuple):
    """Part of a batch that one process reads; the lists have b entries."""

    number: int
    """Batch number, from 0."""
    bucket: int
    image: UInt8[np.ndarray, "b H W 3"]
    captions: list[str]
    """Cleaned captions."""
    records: Int64[np.ndarray, " b"]
    """Record numbers, across all sources."""
    boxes: Float32[np.ndarray, "b 4"]
    """Left, top, right and bottom of the crop, in pixels of the upright image."""
    flipped: Bool[np.ndarray, " b"]
    """Which images are mirrored."""
    skipped: list[Skipped]
    """Records that could not be read and were replaced."""


class _Row(NamedTuple):
    """Random choices for one record of a batch."""

    column: str
    """Column of its caption."""
    place: tuple[float, float]
    """Position of its crop."""
    flipped: bool


class _Read(NamedTuple):
    """Data read for one record, besides the image."""

    record: int
    caption: str
    box: Box
    flipped: bool


class _UnusableError(Exception):
    """Record that cannot be used: the field of `ReadingSettings` that applies, and the reason."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


class BatchReader:
    """Random access to one process's part of every batch: `reader.read(7)`.

    It has no state, so that threads and processes can share it.
    """

    def __init__(
        self,
        sources: Sequence[StreamedSource],
        order: Order,
        shapes: Sequence[tuple[int, int]],
        seed: int,
        reading: ReadingSettings,
        augmentation: AugmentationSettings,
        share: tuple[int, int] = (0, 1),
    ):
        """Prepare to read.

        Args:
          sources: sources of the order.
          order: records of each batch.
          shapes: height and width in pixels, of each bucket.
          seed: seed of captions, crops and flips.
          reading: handling of records that cannot be read.
          augmentation: crops and flips.
          share: index of the process, and number of processes.

        Raises:
          LiditError: for caption columns that an index lacks, or rates that do not fit.
        """
        self._arguments = (sources, order, shapes, seed, reading, augmentation, share)
        self._sources, self._order, self._shapes, self._seed = sources, order, shapes, seed
        self._reading, self._augmentation, self._share = reading, augmentation, share
        self._uses = [
            CaptionUse(source.index, source.filters, source.captions) for source in sources
        ]

    def __reduce__(self) -> tuple[type[BatchReader], tuple[Any, ...]]:
        """Pickle for a reader process, which opens the columns of an index itself."""
        return BatchReader, self._arguments

    def read(self, number: int) -> Batch:
        """Read a batch.

        Args:
          number: batch number, from 0.

        Raises:
          LiditError: when a record cannot be read, and may not be skipped.
        """
        drawn = self._order.batch(int(number), *self._share)
        images = np.empty((len(drawn.records), *self._shapes[drawn.bucket], 3), np.uint8)
        rows = self._draw(drawn.records, drawn.passes)
        skipped: list[Skipped] = []
        found = [
            self._read_or_replace(record, passes, row, image, skipped)
            for record, passes, row, image in zip(
                drawn.records.tolist(), drawn.passes.tolist(), rows, images, strict=True
            )
        ]
        return Batch(
            number=int(number),
            bucket=drawn.bucket,
            image=images,
            captions=[read.caption for read in found],
            records=np.array([read.record for read in found], np.int64),
            boxes=np.array([read.box for read in found], np.float32),
            flipped=np.array([read.flipped for read in found], bool),
            skipped=skipped,
        )

    def _draw(
        self, records: Int64[np.ndarray, " b"], passes: Int64[np.ndarray, " b"]
    ) -> list[_Row]:
        """Return the caption column, crop position and flip of each record."""
        origins = [self._order.source(record) for record in records.tolist()]
        source, own = np.array(origins, np.int64).reshape(-1, 2).T
        columns = np.empty(len(records), object)
        for number in np.unique(source).tolist():
            here, use = source == number, self._uses[number]
            usable = use.usable(own[here])
            chosen = choose_columns(self._seed, records[here], passes[here], use.rates, usable)
            columns[here] = np.array(use.columns, object)[chosen]
        drawn: Augmentation = draw_augmentation(self._seed, records, passes, self._augmentation)
        return [
            _Row(column, (down, right), flipped)
            for column, (down, right), flipped in zip(
                columns.tolist(), drawn.places.tolist(), drawn.flipped.tolist(), strict=True
            )
        ]

    def _read_or_replace(
        self,
        record: int,
        passes: int,
        row: _Row,
        image: UInt8[np.ndarray, "H W 3"],
        skipped: list[Skipped],
    ) -> _Read:
        """Fill `image` with a record, or with the first substitute that can be read."""
        tried, error = record, None
        for attempt in range(_ATTEMPTS):
            try:
                return self._read(tried, row, image)
            except _UnusableError as problem:
                error = problem
                if getattr(self._reading, problem.kind) == "fail":
                    raise LiditError(
                        f"{problem} (to go on without such records, set "
                        f"config.data.reading.{problem.kind} to 'skip')"
                    ) from problem
            source, own = self._order.source(tried)
            place = self._sources[source].index.place(own)
            name = repr(self._sources[source].records)
            skipped.append(Skipped(tried, name, place.shard, place.key, error.kind, str(error)))
            tried = self._order.substitute(record, attempt)
            (row,) = self._draw(np.array([tried]), np.array([passes]))
        raise LiditError(
            f"{_ATTEMPTS} records in a row cannot be read: mend or filter them; the last: {error}"
        )

    def _read(self, record: int, row: _Row, image: UInt8[np.ndarray, "H W 3"]) -> _Read:
        number, own = self._order.source(record)
        source = self._sources[number]
        place = source.index.place(own)
        named = f"record {place.key} of {place.shard}"
        try:
            content = source.records.read(place)
        except LiditError as error:
            raise _UnusableError("missing", str(error)) from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise _UnusableError("missing", f"{named} cannot be read ({reason})") from error
        except Exception as error:
            text = " ".join(str(error).split())
            raise LiditError(
                f"{named} cannot be read ({type(error).__name__}: {text}): mend it, or leave it out"
            ) from error
        caption = self._caption(named, row.column, content.captions.get(row.column, ""))
        try:
            fitted = read_fitted(
                io.BytesIO(content.image),
                image.shape[:2],
                row.place,
                named=named,
                most_megapixels=self._reading.most_megapixels,
            )
        except UnreadableImageError as error:
            kind = "too_large" if error.too_large else "damaged"
            raise _UnusableError(kind, str(error)) from error
        image[:] = fitted.image[:, ::-1] if row.flipped else fitted.image
        return _Read(record, caption, fitted.box, row.flipped)

    def _caption(self, named: str, column: str, text: str) -> str:
        try:
            cleaned = prompt_text(f"{named}: {column}", text)
        except LiditError as error:
            raise _UnusableError("bad_caption", str(error)) from error
        if not cleaned:
            raise _UnusableError("bad_caption", f"{named} has nothing in its column {column!r}")
        return cleaned


def batches(
    reader: BatchReader, position: int, skipped: SkippedRecords, workers: int = 0, threads: int = 2
) -> Generator[Batch]:
    """Yield endless batches of a reader, in order, prefetched.

    Reading starts with the first request, and stops when the generator is closed.

    Args:
      reader: reader of this process.
      position: number of the first batch.
      skipped: counts and lists records that could not be read.
      workers: number of processes that read whole batches in turn; 0 for threads.
      threads: number of threads that read whole batches, without processes.

    Raises:
      LiditError: when a record cannot be read and may not be skipped, when too many are skipped,
        or a process that reads was ended.
    """
    dataset = grain.MapDataset.range(_ENDLESS).map(reader.read)[position:]
    with contextlib.closing(read_ahead(dataset, workers, threads)) as found:
        try:
            for batch in found:
                skipped.add(batch.skipped, len(batch.captions))
                yield batch
        finally:
            skipped.write()
