"""Cached latents of all images in use, sharded by bucket."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float16, Int64, UInt8

from lidit_jax.autoencoders.frozen import FrozenAutoencoder
from lidit_jax.config.data_settings import ReadingSettings
from lidit_jax.data.bucket_members import BucketMembers
from lidit_jax.data.cache import entries
from lidit_jax.data.cache.differences import DATA
from lidit_jax.data.cache.layout import Layout, ShardRange
from lidit_jax.data.cache.record_pool import RecordPool
from lidit_jax.data.cache.store import EncodedShard, Facts, Missing, Store, StorePlan, open_store
from lidit_jax.data.cache.unusable import UnusableRecords
from lidit_jax.data.latent_encoding import LatentEncoder
from lidit_jax.data.opened_data import OpenedData
from lidit_jax.data.record_reading import UnusableRecordError, read_record
from lidit_jax.data.skipped_records import REPAIRED, Skipped
from lidit_jax.data.streamed_source import StreamedSource

_JOB = 8
"""Images that a thread or process reads at a time."""


class LatentCache:
    """Latents by record number, across all sources. It can be pickled.

    `shapes` are the shapes of the latents of each bucket.
    """

    def __init__(
        self,
        store: Store,
        used: Sequence[BucketMembers],
        shapes: Sequence[tuple[int, int, int]],
    ):
        """Bind a store to the records.

        Args:
          store: latents; each bucket is a group.
          used: records of each source by bucket.
          shapes: shape of the latents of each bucket.
        """
        self.store = store
        self._used, self.shapes = tuple(used), tuple(shapes)
        self._first = _first_records(used)
        counts = np.array([members.counts for members in used])
        self._before = np.cumsum(counts, axis=0) - counts

    def read(self, record: int) -> Float16[np.ndarray, "h w C"]:
        """Read a latent; it is not normalized.

        Args:
          record: number of a record that is used.

        Raises:
          UnusableRecordError: when its image could not be used.
          LiditError: when the shard is missing or damaged.
        """
        source = int(np.searchsorted(self._first, record, side="right")) - 1
        members, own = self._used[source], record - int(self._first[source])
        bucket = members.bucket(own)
        rank = int(members.rank(np.array([own]))[0])
        content = self.store.read(bucket, int(self._before[source, bucket]) + rank)
        return np.frombuffer(entries.values_of(content), "<f2").reshape(self.shapes[bucket])


def latent_cache(
    data: OpenedData,
    autoencoder: FrozenAutoencoder,
    folder: Path,
    reading: ReadingSettings,
    missing: Missing = "build",
    *,
    workers: int = 0,
    share: tuple[int, int] | None = None,
) -> LatentCache:
    """Open the cached latents of all records in use, after encoding what is missing.

    All processes call it together.

    Args:
      data: the data of the run.
      autoencoder: the frozen autoencoder.
      folder: parent of all cached data, which may be in a bucket.
      reading: handling of records that cannot be read.
      missing: what to do about missing latents, see `open_store`.
      workers: number of processes that read images; 0 for threads.
      share: index of this process and number of processes; None for those of JAX.

    Raises:
      LiditError: see `open_store`; also when a record may not be skipped.
    """
    encoder = LatentEncoder(autoencoder)
    shapes = [encoder.latent_shape(shape) for shape in data.shapes]
    largest = max(map(np.prod, shapes)) * np.dtype(np.float16).itemsize
    counts = np.sum([members.counts for members in data.used], axis=0).tolist()
    description: dict[str, Any] = {
        "autoencoder": autoencoder.fingerprint,
        "reading.most_megapixels": reading.most_megapixels,
        DATA: data.identity,
        "shapes": [list(shape) for shape in data.shapes],
    }
    if reading.damaged == "repair":
        description["reading.damaged"] = "repair"
    plan = StorePlan(
        "latents",
        description,
        Layout.of_size("latents", tuple(counts), int(largest)),
    )
    with RecordPool(data.sources, workers) as pool:
        encode = _ShardEncoder(data, encoder, reading, pool)
        store = open_store(folder, plan, encode, missing, share)
    return LatentCache(store, data.used, shapes)


class _ReadJob(NamedTuple):
    """Images to read: source and number in it of each."""

    records: list[tuple[int, int]]
    shape: tuple[int, int]
    reading: ReadingSettings


class _Image(NamedTuple):
    """Image of one record."""

    values: UInt8[np.ndarray, "H W 3"]
    repaired: str
    """Message about its repair; empty without one."""


def _read_images(
    sources: Sequence[StreamedSource], job: _ReadJob
) -> list[_Image | UnusableRecordError]:
    return [_read_image(sources[source], own, job) for source, own in job.records]


def _read_image(source: StreamedSource, own: int, job: _ReadJob) -> _Image | UnusableRecordError:
    try:
        record = read_record(source.records, source.index.place(own))
        fitted = record.fitted(job.shape, job.reading)
    except UnusableRecordError as error:
        return error
    return _Image(fitted.image, record.repaired(fitted))


_Errors = list[UnusableRecordError | None]
"""Why each image of a batch cannot be used; None for those that can."""


class _ShardEncoder:
    """Encodes the images of a shard."""

    def __init__(
        self,
        data: OpenedData,
        encoder: LatentEncoder,
        reading: ReadingSettings,
        pool: RecordPool,
    ):
        self._data, self._encoder, self._reading, self._pool = data, encoder, reading, pool
        self._unusable = UnusableRecords(data.sources, reading)

    def __call__(self, shard: ShardRange, advance: Callable[[int], None]) -> EncodedShard:
        result, rows = list[bytes](), list[Skipped]()
        waiting = deque[tuple[Array, _Errors]]()

        def finish() -> None:
            latents, errors = waiting.popleft()
            values = np.asarray(latents).astype("<f2", copy=False)
            for value, error in zip(values, errors, strict=False):
                filled = entries.with_values(value.tobytes())
                result.append(entries.without_values(error) if error else filled)
            advance(len(errors))

        for images, errors in self._batches(shard, rows):
            waiting.append((self._encoder(images), errors))
            if len(waiting) > 1:  # one batch is encoded while the next is read
                finish()
        while waiting:
            finish()
        repaired = sum(row.kind == REPAIRED for row in rows)
        return EncodedShard(result, Facts({REPAIRED: repaired} if repaired else {}, {}), rows)

    def _batches(
        self, shard: ShardRange, rows: list[Skipped]
    ) -> Iterator[tuple[UInt8[np.ndarray, "B H W 3"], _Errors]]:
        """Yield images in batches of one size, black where there is none; add to `rows`."""
        shape, records = self._data.shapes[shard.group], self._records(shard)
        jobs = (
            _ReadJob(records[start : start + _JOB], shape, self._reading)
            for start in range(0, len(records), _JOB)
        )
        found = itertools.chain.from_iterable(self._pool.map(_read_images, jobs))
        size = self._encoder.batch_size(shape)
        for start in range(0, len(records), size):
            numbers = records[start : start + size]
            images, errors = np.zeros((size, *shape, 3), np.uint8), _Errors()
            self._unusable.read(len(numbers))
            for image, (source, own) in zip(images, numbers, strict=False):
                read = next(found)
                errors.append(read if isinstance(read, UnusableRecordError) else None)
                if isinstance(read, UnusableRecordError):
                    rows.append(self._unusable.row(source, own, read))
                else:
                    image[:] = read.values
                    if read.repaired:
                        rows.append(self._unusable.repaired(source, own, read.repaired))
            yield images, errors

    def _records(self, shard: ShardRange) -> list[tuple[int, int]]:
        """Return source and number of each record of a shard."""
        found: list[tuple[int, int]] = []
        first = 0
        for source, members in enumerate(self._data.used):
            count = int(members.counts[shard.group])
            start, stop = (min(max(end - first, 0), count) for end in (shard.start, shard.stop))
            own: Int64[np.ndarray, " r"] = members.records(shard.group, np.arange(start, stop))
            found += [(source, number) for number in own.tolist()]
            first += count
        return found


def _first_records(used: Sequence[BucketMembers]) -> Int64[np.ndarray, " sources"]:
    """Return the number of each source's first record, across all sources."""
    sizes = [len(members) for members in used]
    return np.cumsum([0, *sizes[:-1]])
