"""Aspect-ratio buckets: training image sizes with nearly equal token counts.

All images of a batch have one shape, and each image gets the shape nearest to its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from lidit_jax.config.data_settings import BucketSettings
from lidit_jax.errors import LiditError

LEFT_OUT = 255
"""Bucket of records that are not used."""
_TOLERANCE = 1.05
"""Largest ratio of the square's tokens to those of any other shape; the smallest is 1."""
_LONGER = 1.05
"""Factor by which the longest shapes may exceed the limit, as sides are whole patches."""
_FAR = 2**20
"""Limit to which longer sides are clipped, so that their squares fit 64 bits."""
_PIECE = 2**20
"""Number of records assigned at a time, so that memory does not grow with their number."""


class BucketReport(NamedTuple):
    """Number and cropping of the images of one shape."""

    shape: tuple[int, int]
    """Height and width in pixels."""
    records: int
    cut: float
    """Share of their pixels that is cropped."""


class Buckets:
    """Shapes of one resolution, from the tallest to the widest.

    Of n shapes, the middle one is a square; shape i is the transpose of shape n - 1 - i.
    """

    def __init__(self, side: int, step: int, settings: BucketSettings | None = None):
        """Choose the shapes.

        Aspects are spaced evenly in their logarithm from 1:2 to 2:1 (`settings.aspect`), as far as
        sides in whole steps allow: each shape has the tokens of the square or up to 5% fewer, so
        that none needs more memory. Small sizes have fewer shapes, down to only the square.

        Args:
          side: side of the square, in pixels.
          step: divisor of all sides: patch times downsampling of the autoencoder.
          settings: maximum number of shapes, and largest aspect.

        Raises:
          LiditError: when the side is not a multiple of the step.
        """
        if side <= 0 or side % step:
            raise LiditError(
                f"image size {side}: must be a positive multiple of {step} (patch x downsampling "
                "of the autoencoder)"
            )
        settings = settings or BucketSettings()
        wide = _wide_shapes(side // step, (settings.shapes - 1) // 2, settings.aspect)
        square = (side // step, side // step)
        tall = [shape[::-1] for shape in reversed(wide)]
        self.shapes = tuple((h * step, w * step) for h, w in (*tall, square, *wide))
        """Height and width of each, in pixels."""
        # An image belongs to the next longer shape where its aspect is beyond the geometric mean
        # of both aspects: long² / short² > product of widths / product of heights.
        near_square = [square, *wide]
        self._limits = [
            (one[1] * other[1], one[0] * other[0]) for one, other in itertools.pairwise(near_square)
        ]

    def __len__(self) -> int:
        return len(self.shapes)

    def assign(
        self, width: Int64[np.ndarray, " n"], height: Int64[np.ndarray, " n"]
    ) -> UInt8[np.ndarray, " n"]:
        """Return the shape of each image: the nearest aspect, in its logarithm.

        It is computed in integers, so that all processors give the same result.

        Args:
          width: of upright images, in pixels.
          height: likewise.
        """
        longer = np.minimum(np.maximum(width, height), _FAR)
        shorter = np.minimum(width, height)
        steps = np.zeros(len(width), np.int64)
        for product, divisor in self._limits:
            steps += longer * longer * divisor > shorter * shorter * product
        return (len(self) // 2 + np.where(width > height, steps, -steps)).astype(np.uint8)

    def assign_kept(
        self, width: np.ndarray, height: np.ndarray, keep: Bool[np.ndarray, " n"]
    ) -> UInt8[np.ndarray, " n"]:
        """Return `assign`, with `LEFT_OUT` for records that are not kept, computed in blocks.

        Args:
          width: a column of an index, of any integers.
          height: likewise.
          keep: which records are used.
        """
        result = np.full(len(keep), LEFT_OUT, np.uint8)
        for start in range(0, len(keep), _PIECE):
            part = slice(start, start + _PIECE)
            found = self.assign(width[part].astype(np.int64), height[part].astype(np.int64))
            result[part] = np.where(keep[part], found, LEFT_OUT)
        return result

    def cut(
        self,
        width: Int64[np.ndarray, " n"],
        height: Int64[np.ndarray, " n"],
        buckets: UInt8[np.ndarray, " n"],
    ) -> Float64[np.ndarray, " n"]:
        """Return the share of each image's pixels outside its bucket's shape."""
        shapes = np.array(self.shapes, np.float64)[buckets]
        ratio = (width / height) / (shapes[:, 1] / shapes[:, 0])
        return 1 - np.minimum(ratio, 1 / ratio)

    def report(
        self, width: np.ndarray, height: np.ndarray, buckets: UInt8[np.ndarray, " n"]
    ) -> list[BucketReport]:
        """Return the number of records per shape, and the share that is cropped.

        Args:
          width: a column of an index.
          height: likewise.
          buckets: bucket of each record; `LEFT_OUT` is not counted.
        """
        records, lost, pixels = np.zeros((3, len(self)))
        for start in range(0, len(buckets), _PIECE):
            kept = start + np.flatnonzero(buckets[start : start + _PIECE] != LEFT_OUT)
            wide, high = width[kept].astype(np.int64), height[kept].astype(np.int64)
            places, area = buckets[kept], (wide * high).astype(np.float64)
            records += np.bincount(places, minlength=len(self))
            pixels += np.bincount(places, area, len(self))
            lost += np.bincount(places, area * self.cut(wide, high, places), len(self))
        share = np.divide(lost, pixels, out=np.zeros(len(self)), where=pixels > 0)
        return [
            BucketReport(shape, int(count), float(cut))
            for shape, count, cut in zip(self.shapes, records, share, strict=True)
        ]

    def join_small(self, counts: Sequence[int], batch_size: int) -> UInt8[np.ndarray, " k"]:
        """Return the new bucket of each bucket, after those smaller than a batch are merged.

        The smallest is merged into the remaining one of nearest aspect, until all fill a batch;
        empty ones are no longer used. The last one remains, however small: its records are repeated
        within a batch.

        Args:
          counts: records of each bucket, of all sources together.
          batch_size: of all processes together.

        Returns:
          The bucket that takes the records of each; `joined` applies it.
        """
        aspects = [math.log(w / h) for h, w in self.shapes]
        sizes = {bucket: int(count) for bucket, count in enumerate(counts)}
        goes_to = np.arange(len(self), dtype=np.uint8)
        while len(sizes) > 1 and min(sizes.values()) < batch_size:
            smallest = min(sizes, key=lambda bucket: (sizes[bucket], abs(aspects[bucket])))
            size = sizes.pop(smallest)
            nearest = min(
                sizes,
                key=lambda bucket: (abs(aspects[bucket] - aspects[smallest]), -sizes[bucket]),
            )
            sizes[nearest] += size
            goes_to[goes_to == smallest] = nearest
        return goes_to


def bucket_counts(buckets: UInt8[np.ndarray, " n"], count: int) -> Int64[np.ndarray, " k"]:
    """Return the number of records in each of `count` buckets, without `LEFT_OUT`."""
    found = np.zeros(256, np.int64)
    for start in range(0, len(buckets), _PIECE):
        found += np.bincount(buckets[start : start + _PIECE], minlength=256)
    return found[:count]


def joined(
    buckets: UInt8[np.ndarray, " n"], goes_to: UInt8[np.ndarray, " k"]
) -> UInt8[np.ndarray, " n"]:
    """Return the buckets of records after merging of small ones, see `Buckets.join_small`."""
    table = np.full(256, LEFT_OUT, np.uint8)
    table[: len(goes_to)] = goes_to
    return table[buckets]


def _wide_shapes(side: int, count: int, aspect: float) -> list[tuple[int, int]]:
    """Return up to `count` shapes (height, width) wider than the square, in steps, by aspect."""
    most, least = side * side, side * side / _TOLERANCE
    fitting = [
        (height, width)
        for height in range(1, side)
        for width in range(math.ceil(least / height), most // height + 1)
        if 1 < width / height <= aspect * _LONGER
    ]
    wanted = [aspect ** ((i + 1) / count) for i in range(count)] if fitting else []
    chosen = {
        min(fitting, key=lambda shape: (abs(math.log(shape[1] / shape[0] / near)), shape))
        for near in wanted
    }
    return sorted(chosen, key=lambda shape: shape[1] / shape[0])
