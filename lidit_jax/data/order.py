"""Order of records: the contents of batch N as a pure function of the seed and N.

Every batch has one bucket. The buckets alternate in proportion to their records, so that all of
them end a pass together, within a few batches. Within a bucket each pass is a random order of its
records; the rest of a pass begins the next batch of the bucket, so that a pass uses every record
once. Several sources are mixed within each batch, each with its own passes.

The state is only the batch number. Batches do not depend on the number of processes: of P
processes the p-th reads the p-th part of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from lidit_jax.data.bucket_members import BucketMembers
from lidit_jax.data.keyed_random import keyed_bits, shuffled, subkey
from lidit_jax.data.proportions import Proportions
from lidit_jax.errors import LiditError

_FINEST = 10**6
"""Resolution of the sources' weights."""
_PIECE = 2**16
"""Number of batches looked through at a time."""


class BatchOrder(NamedTuple):
    """Records of a batch that one process reads."""

    number: int
    """Batch number, from 0."""
    bucket: int
    records: Int64[np.ndarray, " b"]
    """Record numbers, across all sources."""
    passes: Int64[np.ndarray, " b"]
    """Number of earlier uses of each record, except in small sources that fill batches twice."""


def rows_per_process(batch_size: int, processes: int) -> int:
    """Return the number of records of a batch that each process reads.

    Raises:
      LiditError: when the processes do not divide the batch.
    """
    if batch_size % processes:
        raise LiditError(
            f"a batch of {batch_size} cannot be divided among {processes} processes: change "
            "config.training.batch_size"
        )
    return batch_size // processes


class Order:
    """Batches of a run: `order.batch(7)`."""

    def __init__(
        self,
        sources: Sequence[BucketMembers],
        batch_size: int,
        seed: int,
        weights: Sequence[float] = (),
        used: Int64[np.ndarray, "sources buckets"] | None = None,
    ):
        """Prepare the order; nothing here grows with the number of records.

        Args:
          sources: records of each source by bucket; all have the same number of buckets.
          batch_size: global batch size, over all processes.
          seed: seed of the order.
          weights: relative share of each source in every batch; empty: in proportion to its
            number of records.
          used: records of each source and bucket that earlier batches of another size have used,
            from `counts`; None for none.

        Raises:
          LiditError: when a source has no record, or no positive weight.
        """
        sizes = [int(members.counts.sum()) for members in sources]
        if not sources or not all(sizes):
            raise LiditError("a source has no records that are used: loosen the filters")
        if weights and (len(weights) != len(sources) or min(weights) <= 0):
            raise LiditError(
                f"weights={tuple(weights)}: give each of the {len(sources)} sources one that is "
                "greater than 0"
            )
        self._sources, self._size, self._seed = sources, batch_size, seed
        self._offsets = np.cumsum([0, *(len(members) for members in sources)])
        exact = [Fraction(weight).limit_denominator(_FINEST) for weight in weights or sizes]
        cells = [
            [weight * int(count) / size for count in members.counts]
            for members, weight, size in zip(sources, exact, sizes, strict=True)
        ]
        by_bucket = list(zip(*cells, strict=True))
        self._buckets = Proportions([sum(column) for column in by_bucket])
        self._mixtures = [Proportions(column) if any(column) else None for column in by_bucket]
        self._used = np.zeros((len(sources), len(by_bucket)), np.int64) if used is None else used

    def __len__(self) -> int:
        """Return the number of records of all sources, used or not."""
        return int(self._offsets[-1])

    def batch(self, number: int, process: int = 0, processes: int = 1) -> BatchOrder:
        """Return the part of a batch that one process reads.

        Args:
          number: batch number, from 0.
          process: index of the process.
          processes: number of processes.

        Raises:
          LiditError: when they do not divide the batch.
        """
        share = rows_per_process(self._size, processes)
        buckets, turns = self._buckets.turns(np.array([number]))
        bucket = int(buckets[0])
        first = int(turns[0]) * self._size + process * share
        mixture = self._mixtures[bucket]
        assert mixture is not None  # a bucket without records is never used
        origins, places = mixture.turns(np.arange(first, first + share))
        records, passes = np.empty((2, share), np.int64)
        for source in np.unique(origins):
            here = origins == source
            found = self._drawn(int(source), bucket, places[here])
            records[here], passes[here] = found
        return BatchOrder(number, bucket, records, passes)

    def buckets(self, begin: int, end: int) -> list[int]:
        """Return the buckets of batches `begin` to `end`, each once, in order of first use."""
        used = sum(mixture is not None for mixture in self._mixtures)
        found: dict[int, None] = {}
        for start in range(begin, end, _PIECE):
            turns, _ = self._buckets.turns(np.arange(start, min(start + _PIECE, end)))
            buckets, first = np.unique(turns, return_index=True)
            found |= dict.fromkeys(buckets[np.argsort(first)].tolist())
            if len(found) == used:
                break
        return list(found)

    def first_records(self, count: int) -> list[Int64[np.ndarray, " _r"]]:
        """Return the records with the smallest numbers, as many of each source.

        Args:
          count: of all sources together; rounded up, or all if there are fewer.

        Returns:
          Their numbers in each source, ascending.
        """
        each = -(-count // len(self._sources))
        return [
            np.sort(
                np.concatenate(
                    [
                        members.records(bucket, np.arange(min(each, size)))
                        for bucket, size in enumerate(members.counts.tolist())
                    ]
                )
            )[:each]
            for members in self._sources
        ]

    def source(self, record: int) -> tuple[int, int]:
        """Return the source of a record number, and the record's number in it."""
        source = int(np.searchsorted(self._offsets, record, side="right")) - 1
        return source, record - int(self._offsets[source])

    def substitute(self, record: int, attempt: int, bucket: int | None = None) -> int:
        """Return another record of the same source and bucket, for one that cannot be read.

        Args:
          record: the record that cannot be read.
          attempt: attempt number, from 0; each gives another record, as far as there are any.
          bucket: bucket of a record that is not in the order; if its source has no record there,
            the substitute is of another one.
        """
        source, own = self.source(record)
        if bucket is None:
            bucket = self._sources[source].bucket(own)
        counts = [int(members.counts[bucket]) for members in self._sources]
        if not counts[source]:
            source = int(np.argmax(counts))
        key = subkey(self._seed, "substitute")
        bits = keyed_bits(key, np.array([record]), np.array([attempt]))
        rank = (bits % np.uint64(counts[source])).astype(np.int64)
        members = self._sources[source]
        return int(self._offsets[source] + members.records(bucket, rank)[0])

    def counts(self, batches: int) -> Int64[np.ndarray, "sources buckets"]:
        """Return the records used per source and bucket after a number of batches.

        Args:
          batches: number of batches.
        """
        turns = self._buckets.counts(np.array([batches]))[:, 0]
        result = self._used.copy()
        for bucket, mixture in enumerate(self._mixtures):
            if mixture is not None:
                result[:, bucket] += mixture.counts(turns[bucket : bucket + 1] * self._size)[:, 0]
        return result

    def _drawn(
        self, source: int, bucket: int, places: Int64[np.ndarray, " r"]
    ) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
        """Return the records at positions in the endless passes of a bucket, and the passes."""
        members = self._sources[source]
        count = int(members.counts[bucket])
        passes, inside = np.divmod(places + self._used[source, bucket], count)
        keys = keyed_bits(subkey(self._seed, "order", source, bucket), passes)
        ranks = shuffled(inside, count, keys)
        return members.records(bucket, ranks) + self._offsets[source], passes
