"""Held-out records: their choice, and the batches of a validation, each of one image shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, UInt8, UInt64

from lidit_jax.data.order import BatchOrder, Order, rows_per_process

_PIECE = 2**20
"""Number of records compared at a time, so that memory does not grow with their number."""


class HeldOutRows(NamedTuple):
    """Rows of a validation batch that one process reads."""

    positions: Int64[np.ndarray, " b"]
    """Number of each row in the whole validation, independent of batch size and processes."""
    valid: Bool[np.ndarray, " b"]
    """Whether each row counts; others repeat rows to fill the batch."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Fixed validation batches: `held_out.batch(0)`, for numbers below `batches`.

    Records are grouped by shape; the last batch of each shape is filled with repeated rows.
    Derive other batch sizes with `dataclasses.replace`.
    """

    order: Order
    """Training order: source of each record, and substitutes for unreadable ones."""
    records: Int64[np.ndarray, " n"]
    """Held-out records of all sources, sorted by bucket, then by number."""
    buckets: UInt8[np.ndarray, " n"]
    """Bucket of each."""
    batch_size: int
    """Of all processes together."""
    times: int = 1
    """Number of rows per record."""

    def __len__(self) -> int:
        """Return the number of rows of a validation, without padding."""
        return len(self.records) * self.times

    @property
    def batches(self) -> int:
        """Number of batches of a validation."""
        return len(self._starts)

    @cached_property
    def shapes(self) -> tuple[int, ...]:
        """Buckets of the records, in order."""
        return tuple(np.unique(self.buckets).tolist())

    def batch(self, number: int, process: int = 0, processes: int = 1) -> BatchOrder:
        """Return the part of a batch that one process reads.

        Args:
          number: batch number, from 0.
          process: index of the process.
          processes: number of processes.

        Raises:
          LiditError: when they do not divide the batch.
        """
        positions = self.rows(number, process, processes).positions
        ranks, passes = np.divmod(positions, self.times)
        bucket, _ = self._starts[number]
        return BatchOrder(number, bucket, self.records[ranks], passes)

    def rows(self, number: int, process: int = 0, processes: int = 1) -> HeldOutRows:
        """Return the positions of the rows that one process reads, and which of them count.

        Args:
          number: batch number, from 0.
          process: index of the process.
          processes: number of processes.

        Raises:
          LiditError: when they do not divide the batch.
        """
        share = rows_per_process(self.batch_size, processes)
        bucket, start = self._starts[number]
        first, count = self._extents[bucket]
        inside = start + process * share + np.arange(share)
        return HeldOutRows(first + inside % count, inside < count)

    def source(self, record: int) -> tuple[int, int]:
        """Return the source of a record number, and the record's number in it."""
        return self.order.source(record)

    def substitute(self, record: int, attempt: int) -> int:
        """Return another record of the same bucket, for one that cannot be read.

        It is the next held-out one; after all of them, a training record.

        Args:
          record: the record that cannot be read.
          attempt: attempt number, from 0.
        """
        rank = int(np.flatnonzero(self.records == record)[0])
        bucket = int(self.buckets[rank])
        first, last = np.searchsorted(self.buckets, [bucket, bucket + 1]).tolist()
        others = last - first - 1
        if attempt >= others:
            return self.order.substitute(record, attempt - others, bucket)
        return int(self.records[first + (rank - first + 1 + attempt) % (others + 1)])

    @cached_property
    def _extents(self) -> dict[int, tuple[int, int]]:
        """First row of each bucket, and their number."""
        found: dict[int, tuple[int, int]] = {}
        for bucket in self.shapes:
            first, last = np.searchsorted(self.buckets, [bucket, bucket + 1]).tolist()
            found[bucket] = (first * self.times, (last - first) * self.times)
        return found

    @cached_property
    def _starts(self) -> list[tuple[int, int]]:
        """Bucket of each batch, and its first row among those of the bucket."""
        return [
            (bucket, start)
            for bucket, (_, count) in self._extents.items()
            for start in range(0, count, self.batch_size)
        ]


def smallest(
    names: UInt64[np.ndarray, " n"], usable: Bool[np.ndarray, " n"], count: int
) -> Int64[np.ndarray, " k"]:
    """Return the usable records with the smallest digests of their keys, by record number.

    The choice depends neither on the order of the records nor on their place.

    Args:
      names: digest of each record's key.
      usable: records to choose from.
      count: number of records, if there are as many.
    """
    chosen = np.zeros(0, np.int64)
    for start in range(0, len(names), _PIECE):
        part = start + np.flatnonzero(usable[start : start + _PIECE])
        chosen = np.concatenate([chosen, part])
        if len(chosen) > count:
            ranks = np.lexsort((chosen, names[chosen]))
            chosen = chosen[ranks[:count]]
    return np.sort(chosen)


def held_out_counts(used: Sequence[int], rates: Sequence[float], records: int) -> list[int]:
    """Return the number of records to hold out of each source: at least one.

    Args:
      used: number of records of each source.
      rates: relative sampling rate of each.
      records: number of records wanted of all.
    """
    total = sum(rates)
    return [
        min(max(round(records * rate / total), 1), count)
        for count, rate in zip(used, rates, strict=True)
    ]
