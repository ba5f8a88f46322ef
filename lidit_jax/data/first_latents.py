"""Latents of the first training records, for the statistics that normalize all latents."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float16, Int64, UInt8

from lidit_jax.config.data_settings import ReadingSettings
from lidit_jax.data.cache.latent_cache import LatentCache
from lidit_jax.data.latent_encoding import LatentEncoder
from lidit_jax.data.opened_data import OpenedData
from lidit_jax.data.record_reading import UnusableRecordError, read_record

_THREADS = 8


def first_latents(
    data: OpenedData, count: int, latents: LatentCache | LatentEncoder, reading: ReadingSettings
) -> Iterator[Float16[np.ndarray, "1 _h _w C"]]:
    """Yield the latents of the first training records, one at a time, by source, shape and number.

    Records that cannot be used are left out. Images are not augmented.

    Args:
      data: the data of the run.
      count: number of records of all sources together.
      latents: reads the latents, or computes them.
      reading: handling of records that cannot be read.

    Raises:
      LiditError: when a record cannot be used and may not be skipped.
    """
    for source, records in enumerate(data.order.first_records(count)):
        members = data.used[source]
        buckets = np.array([members.bucket(record) for record in records.tolist()], np.int64)
        for bucket in np.unique(buckets).tolist():
            own = records[buckets == bucket]
            if isinstance(latents, LatentCache):
                first = sum(len(earlier) for earlier in data.used[:source])
                yield from _stored(latents, own + first)
            else:
                yield from _computed(data, source, bucket, own, latents, reading)


def _stored(
    cache: LatentCache, records: Int64[np.ndarray, " r"]
) -> Iterator[Float16[np.ndarray, "1 h w C"]]:
    for record in records.tolist():
        try:
            yield cache.read(record)[None]
        except UnusableRecordError:
            continue


def _computed(
    data: OpenedData,
    source: int,
    bucket: int,
    records: Int64[np.ndarray, " r"],
    encoder: LatentEncoder,
    reading: ReadingSettings,
) -> Iterator[Float16[np.ndarray, "1 h w C"]]:
    shape, opened = data.shapes[bucket], data.sources[source]
    size = encoder.batch_size(shape)

    def read(record: int) -> UInt8[np.ndarray, "H W 3"] | None:
        try:
            found = read_record(opened.records, opened.index.place(record))
            return found.fitted(shape, reading).image
        except UnusableRecordError as error:
            if getattr(reading, error.kind) == "fail":
                raise error.refusal() from error
            return None

    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(records), size):
            part = records[start : start + size].tolist()
            images = [image for image in pool.map(read, part) if image is not None]
            padded = np.zeros((size, *shape, 3), np.uint8)
            for row, image in zip(padded, images, strict=False):
                row[:] = image
            encoded = np.asarray(encoder(padded))
            yield from (encoded[row : row + 1] for row in range(len(images)))
