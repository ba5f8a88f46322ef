"""Shards of a folder whose pictures are files of their own: runs of the sorted names."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Mapping, Sequence

from lidit_jax.data.sources.protocol import Shard

CHUNK = 10_000
"""Pictures in a shard, at most."""
_BETWEEN = "//"
"""Between the first and the last name of a shard's; it stands in no name."""


def chunk_shards(names: Sequence[str], versions: Mapping[str, str]) -> list[Shard]:
    """The shards of some pictures.

    Args:
      names: of the pictures, sorted.
      versions: of each file a text that changes when it may have changed.
    """
    shards = []
    for start in range(0, len(names), CHUNK):
        chunk = names[start : start + CHUNK]
        shards.append(Shard(_BETWEEN.join((chunk[0], chunk[-1])), digest_of(chunk, versions)))
    return shards


def chunk_of(names: Sequence[str], shard: Shard) -> Iterator[str]:
    """The names that belong to a shard, even when others have come or gone since."""
    first, _, last = shard.name.partition(_BETWEEN)
    for place in range(bisect.bisect_left(names, first), bisect.bisect_right(names, last)):
        yield names[place]


def digest_of(names: Sequence[str], versions: Mapping[str, str]) -> str:
    """A text that changes with any of these files."""
    digest = hashlib.blake2b(digest_size=8)
    for name in names:
        digest.update(f"{name}\0{versions.get(name, '')}\0".encode())
    return digest.hexdigest()
