"""Lookup of the r-th record of a bucket, without storing a list per bucket."""

from __future__ import annotations

import mmap
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

_BLOCK = 512
"""Records per block: counted together, and searched for a lookup."""
_PIECE = 2**11
"""Number of blocks counted at a time."""
_ROWS = 256
"""Number of records looked up at a time: 128 KiB of buckets."""


class _Mapped(NamedTuple):
    """Location of memory-mapped bytes in a file."""

    file: str
    offset: int
    size: int


class BucketMembers:
    """Records of each bucket of one source, in order: about one byte per record.

    Besides the bucket of each record, which may be in a memory-mapped file, it stores the number of
    records of each bucket before each block of 512: 1.6% for one bucket, 16% for ten.
    """

    def __init__(self, buckets: UInt8[np.ndarray, " n"], count: int):
        """Count the records, in one pass.

        Args:
          buckets: bucket of each record; records of `count` and above are not used.
          count: number of buckets.
        """
        self._buckets = buckets
        blocks = -(-len(buckets) // _BLOCK)
        self._before = np.zeros((count, blocks + 1), np.int64)
        for start in range(0, blocks, _PIECE):
            rows = self._rows(np.arange(start, min(start + _PIECE, blocks)))
            for bucket in range(count):
                found = np.count_nonzero(rows == bucket, axis=1)
                self._before[bucket, start + 1 : start + 1 + len(rows)] = found
        np.cumsum(self._before, axis=1, out=self._before)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle for a reader process, which maps buckets in a file itself."""
        state, buckets = dict(vars(self)), self._buckets
        if isinstance(buckets, np.memmap) and isinstance(buckets.base, mmap.mmap):
            state["_buckets"] = _Mapped(str(buckets.filename), buckets.offset, len(buckets))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state of `__getstate__`."""
        buckets = state["_buckets"]
        if isinstance(buckets, _Mapped):
            file, offset, size = buckets
            buckets = np.memmap(file, np.uint8, "r", offset, size)
        vars(self).update(state | {"_buckets": buckets})

    def __len__(self) -> int:
        """Return the number of records, used or not."""
        return len(self._buckets)

    @property
    def counts(self) -> Int64[np.ndarray, " k"]:
        """Records per bucket."""
        return self._before[:, -1]

    def bucket(self, record: int) -> int:
        """Return the bucket of a record."""
        return int(self._buckets[record])

    def records(self, bucket: int, ranks: Int64[np.ndarray, " r"]) -> Int64[np.ndarray, " r"]:
        """Return the records with these ranks in a bucket, counted from 0."""
        found = np.empty(len(ranks), np.int64)
        for start in range(0, len(ranks), _ROWS):
            part = slice(start, start + _ROWS)
            found[part] = self._some_records(bucket, ranks[part])
        return found

    def rank(self, records: Int64[np.ndarray, " r"]) -> Int64[np.ndarray, " r"]:
        """Return the ranks of records in their buckets, counted from 0: the inverse of `records`.

        Args:
          records: numbers of records that are used.
        """
        ranks = np.empty(len(records), np.int64)
        for start in range(0, len(records), _ROWS):
            part = records[start : start + _ROWS]
            blocks, places = np.divmod(part, _BLOCK)
            buckets = self._buckets[part]
            earlier = np.arange(_BLOCK) < places[:, None]
            inside = np.count_nonzero((self._rows(blocks) == buckets[:, None]) & earlier, axis=1)
            ranks[start : start + len(part)] = self._before[buckets, blocks] + inside
        return ranks

    def _some_records(self, bucket: int, ranks: Int64[np.ndarray, " r"]) -> Int64[np.ndarray, " r"]:
        before = self._before[bucket]
        blocks = np.searchsorted(before, ranks, side="right") - 1
        inside = np.cumsum(self._rows(blocks) == bucket, axis=1, dtype=np.int16)
        wanted = (ranks - before[blocks] + 1).astype(np.int16)
        return blocks * _BLOCK + np.argmax(inside == wanted[:, None], axis=1)

    def _rows(self, blocks: Int64[np.ndarray, " b"]) -> UInt8[np.ndarray, "b 512"]:
        """Return the buckets of blocks of records; past the last record, an invalid bucket."""
        last = len(self._buckets) // _BLOCK
        rows = np.full((len(blocks), _BLOCK), 255, np.uint8)
        whole = blocks < last
        grid = self._buckets[: last * _BLOCK].reshape(last, _BLOCK)
        rows[whole] = grid[blocks[whole]]
        rows[~whole, : len(self._buckets) - last * _BLOCK] = self._buckets[last * _BLOCK :]
        return rows
