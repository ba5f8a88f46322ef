"""Batch reader for streamed data: images decoded to one shape per batch, with captions.

A batch is a function of its number: records, shape, captions, crops, and the substitutes of
records that cannot be read. So it does not depend on what was read before, or by which process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import grain.python as grain
import numpy as np
from jaxtyping import Bool, Float, Float16, Float32, Int64, UInt8

from lidit_jax.config.data_settings import AugmentationSettings, ReadingSettings
from lidit_jax.data.augmentation import Augmentation, draw_augmentation
from lidit_jax.data.caption_choice import choose_columns
from lidit_jax.data.filters import CaptionUse
from lidit_jax.data.order import BatchOrder
from lidit_jax.data.read_ahead import read_ahead
from lidit_jax.data.record_reading import (
    ReadRecord,
    UnusableRecordError,
    read_captions,
    read_record,
)
from lidit_jax.data.skipped_records import REPAIRED, Skipped, SkippedRecords
from lidit_jax.data.streamed_source import StreamedSource
from lidit_jax.errors import LiditError
from lidit_jax.io.image_crops import CENTER, Box, crop_box

_ENDLESS = 2**62
"""Number of batches of a run, so that its data set has a length."""
_ATTEMPTS = 50
"""Number of substitutes tried for a record that cannot be read."""


@runtime_checkable
class RecordOrder(Protocol):
    """Order of training or validation records: `lidit_jax.data.order.Order`, or `HeldOut`."""

    def batch(self, number: int, process: int = 0, processes: int = 1) -> BatchOrder:
        """Return the part of a batch that one process reads."""
        ...

    def source(self, record: int) -> tuple[int, int]:
        """Return the source of a record number, and the record's number in it."""
        ...

    def substitute(self, record: int, attempt: int) -> int:
        """Return another record of the same bucket, for one that cannot be read."""
        ...


@runtime_checkable
class LatentReader(Protocol):
    """Cached latents. It can be pickled, and several threads may read it."""

    def read(self, record: int) -> Float16[np.ndarray, "_h _w _C"]:
        """Return the latent of a record number across all sources, without normalization.

        Raises:
          UnusableRecordError: when the image could not be used.
        """
        ...


TextRows = tuple[tuple[Float[np.ndarray, "_S ... _D"], ...], tuple[Bool[np.ndarray, " _S"], ...]]
"""Features and masks of one caption in each stream, padded."""


@runtime_checkable
class TextReader(Protocol):
    """Cached text features. It can be pickled, and several threads may read it."""

    def read(self, record: int, column: str) -> TextRows:
        """Return the features and masks of a record's caption; records count across all sources.

        Raises:
          UnusableRecordError: when the caption could not be used.
        """
        ...


class Batch(NamedTuple):
    """Part of a batch that one process reads, of b rows."""

    number: int
    """Batch number, from 0."""
    bucket: int
    image: UInt8[np.ndarray, "b H W 3"] | None
    """Images; None with cached latents."""
    latent: Float16[np.ndarray, "b h w C"] | None
    """Cached latents without normalization; None without a cache."""
    captions: list[str] | None
    """Cleaned captions; None with cached text features."""
    features: tuple[Float[np.ndarray, "_b _S ... _D"], ...] | None
    """Cached text features of each stream, padded bfloat16; None without a cache."""
    masks: tuple[Bool[np.ndarray, "_b _S"], ...] | None
    """Which tokens of each stream are valid; None without a cache."""
    records: Int64[np.ndarray, " b"]
    """Record numbers, across all sources."""
    boxes: Float32[np.ndarray, "b 4"]
    """Left, top, right and bottom of the crop, in pixels of the upright image."""
    flipped: Bool[np.ndarray, " b"]
    """Which images are mirrored."""
    skipped: list[Skipped]
    """Records that could not be read and were replaced, or whose image was repaired."""


class _Row(NamedTuple):
    """Random choices for one record of a batch."""

    column: str
    """Column of its caption."""
    place: tuple[float, float]
    """Position of its crop."""
    flipped: bool


class _Read(NamedTuple):
    """Data read for one record."""

    record: int
    values: np.ndarray
    """Image or latent."""
    text: str | TextRows
    """Caption, or its features and masks."""
    box: Box
    flipped: bool
    repaired: str = ""
    """Message about the repair of the image; empty without one."""


class BatchReader:
    """Random access to one process's part of every batch: `reader.read(7)`.

    It has no state, so that threads and processes can share it.
    """

    def __init__(
        self,
        sources: Sequence[StreamedSource],
        order: RecordOrder,
        shapes: Sequence[tuple[int, int]],
        seed: int,
        reading: ReadingSettings,
        augmentation: AugmentationSettings,
        share: tuple[int, int] = (0, 1),
        latents: LatentReader | None = None,
        text: TextReader | None = None,
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
          latents: cached latents, to read instead of images.
          text: cached text features, to read instead of captions.

        Raises:
          LiditError: for caption columns that an index lacks, rates that do not fit, or
            augmentation of cached latents.
        """
        if latents is not None and augmentation != AugmentationSettings():
            raise LiditError(
                "config.data.augmentation: cached latents hold each image as it is; set its fields "
                "back, or config.data.latents to 'online'"
            )
        self._arguments = (
            sources,
            order,
            shapes,
            seed,
            reading,
            augmentation,
            share,
            latents,
            text,
        )
        self._sources, self._order, self._shapes, self._seed = sources, order, shapes, seed
        self._reading, self._augmentation, self._share = reading, augmentation, share
        self._latents, self._text = latents, text
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
        rows = self._draw(drawn.records, drawn.passes)
        count = len(rows)
        skipped: list[Skipped] = []
        images, texts = _Rows(count), list[str]()
        features, masks = list[_Rows](), list[_Rows]()
        records, boxes = np.empty(count, np.int64), np.empty((count, 4), np.float32)
        flipped = np.empty(count, bool)
        for i, row in enumerate(rows):
            record, passes = int(drawn.records[i]), int(drawn.passes[i])
            read = self._read_or_replace(drawn.bucket, record, passes, row, skipped)
            records[i], boxes[i], flipped[i] = read.record, read.box, read.flipped
            images.put(i, read.values)
            if isinstance(read.text, str):
                texts.append(read.text)
                continue
            for kept, found in zip((features, masks), read.text, strict=True):
                kept += [_Rows(count) for _ in found[len(kept) :]]
                for stream, values in zip(kept, found, strict=True):
                    stream.put(i, values)
        cached = self._text is not None
        return Batch(
            number=int(number),
            bucket=drawn.bucket,
            image=images.array if self._latents is None else None,
            latent=images.array if self._latents is not None else None,
            captions=None if cached else texts,
            features=tuple(stream.array for stream in features) if cached else None,
            masks=tuple(stream.array for stream in masks) if cached else None,
            records=records,
            boxes=boxes,
            flipped=flipped,
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
        self, bucket: int, record: int, passes: int, row: _Row, skipped: list[Skipped]
    ) -> _Read:
        """Read a record, or the first substitute that can be read."""
        tried, error = record, None
        for attempt in range(_ATTEMPTS):
            try:
                read = self._read(bucket, tried, row)
            except UnusableRecordError as problem:
                error = problem
                if getattr(self._reading, problem.kind) == "fail":
                    raise problem.refusal() from problem
            else:
                if read.repaired:
                    skipped.append(self._listed(tried, REPAIRED, read.repaired))
                return read
            skipped.append(self._listed(tried, error.kind, str(error)))
            tried = self._order.substitute(record, attempt)
            (row,) = self._draw(np.array([tried]), np.array([passes]))
        raise LiditError(
            f"{_ATTEMPTS} records in a row cannot be read: mend or filter them; the last: {error}"
        )

    def _listed(self, record: int, kind: str, message: str) -> Skipped:
        """Return the row of a record that was replaced or repaired."""
        source, own = self._order.source(record)
        place = self._sources[source].index.place(own)
        name = repr(self._sources[source].records)
        return Skipped(record, name, place.shard, place.key, kind, message)

    def _read(self, bucket: int, record: int, row: _Row) -> _Read:
        number, own = self._order.source(record)
        source, shape = self._sources[number], self._shapes[bucket]
        content: ReadRecord | None = None
        if self._latents is None:
            content = read_record(source.records, source.index.place(own))
        elif self._text is None:
            content = read_captions(source.records, source.index.place(own))
        if self._text is not None:
            text = self._text.read(record, row.column)
        else:
            assert content is not None
            text = content.caption(row.column)
        if self._latents is not None:
            latent = self._latents.read(record)
            size = int(source.index.height[own]), int(source.index.width[own])
            return _Read(record, latent, text, crop_box(size, shape, CENTER), False)
        assert content is not None
        fitted = content.fitted(shape, self._reading, row.place)
        image = fitted.image[:, ::-1] if row.flipped else fitted.image
        repaired = content.repaired(fitted)
        return _Read(record, image, text, fitted.box, row.flipped, repaired)


class _Rows:
    """Array of a batch, filled row by row."""

    array: np.ndarray

    def __init__(self, count: int):
        self._count = count

    def put(self, row: int, values: np.ndarray) -> None:
        """Set a row."""
        if row == 0:
            self.array = np.empty((self._count, *values.shape), values.dtype)
        self.array[row] = values


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
                skipped.add(batch.skipped, len(batch.records))
                yield batch
        finally:
            skipped.write()
