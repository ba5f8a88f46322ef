"""Division of a store's entries into shards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

_MOST_ENTRIES = 2**14
_SHARD_BYTES = 2**28
"""Approximate size of a shard: large enough for stores of files, small enough to be lost."""


class ShardRange(NamedTuple):
    """Entries of a group that one shard holds."""

    name: str
    """Name of the file."""
    group: int
    start: int
    stop: int


class Layout(NamedTuple):
    """Numbers of entries by group; each group has its own shards."""

    kind: str
    """First part of the file names."""
    counts: tuple[int, ...]
    """Entries of each group."""
    per_shard: int
    """Entries of a shard; the last one of a group has fewer."""

    @classmethod
    def of_size(cls, kind: str, counts: tuple[int, ...], entry_bytes: int) -> Layout:
        """Return a layout with shards of about 256 MiB.

        Args:
          kind: first part of the file names.
          counts: entries of each group.
          entry_bytes: expected size of an entry.
        """
        fitting = max(_SHARD_BYTES // entry_bytes, 1)
        # A power of two, so that batches of a power of two fill it.
        return cls(kind, counts, min(1 << (fitting.bit_length() - 1), _MOST_ENTRIES))

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Layout:
        """Read what `_asdict` has stored as JSON."""
        return cls(stored["kind"], tuple(stored["counts"]), stored["per_shard"])

    def shards(self) -> Iterator[ShardRange]:
        """Yield all shards, by group."""
        for group, count in enumerate(self.counts):
            for start in range(0, count, self.per_shard):
                stop = min(start + self.per_shard, count)
                yield ShardRange(self._name(group, start), group, start, stop)

    def find(self, group: int, entry: int) -> tuple[str, int]:
        """Return the shard of an entry, and its number in the shard."""
        return self._name(group, entry), entry % self.per_shard

    def _name(self, group: int, entry: int) -> str:
        shard, shards = entry // self.per_shard, -(-self.counts[group] // self.per_shard)
        return f"{self.kind}-{group:02d}-{shard:05d}-of-{shards:05d}.array_record"
