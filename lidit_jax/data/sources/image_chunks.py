"""Shards of an image folder: consecutive runs of its sorted file names."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Mapping, Sequence

from lidit_jax.data.sources.protocol import Shard

CHUNK = 10_000
"""Largest number of images per shard."""
_BETWEEN = "//"
"""Separator of the first and last file name in a shard's name; it occurs in no file name."""


def chunk_shards(names: Sequence[str], versions: Mapping[str, str]) -> list[Shard]:
    """Return the shards of some images.

    Args:
      names: of the images, sorted.
      versions: per file, a text that changes when the file may have changed.
    """
    shards = []
    for start in range(0, len(names), CHUNK):
        chunk = names[start : start + CHUNK]
        shards.append(Shard(_BETWEEN.join((chunk[0], chunk[-1])), digest_of(chunk, versions)))
    return shards


def chunk_of(names: Sequence[str], shard: Shard) -> Iterator[str]:
    """Return the names in a shard, even if files were added or removed since."""
    first, _, last = shard.name.partition(_BETWEEN)
    for place in range(bisect.bisect_left(names, first), bisect.bisect_right(names, last)):
        yield names[place]


def is_chunk(shard: str) -> bool:
    """Return whether the name of a shard is that of some files of a folder."""
    return _BETWEEN in shard


def digest_of(names: Sequence[str], versions: Mapping[str, str]) -> str:
    """Return a text that changes with any of these files."""
    digest = hashlib.blake2b(digest_size=8)
    for name in names:
        digest.update(f"{name}\0{versions.get(name, '')}\0".encode())
    return digest.hexdigest()
