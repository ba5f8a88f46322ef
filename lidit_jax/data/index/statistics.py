"""Statistics of an index: counts by shape and size, caption lengths.

Columns are read in blocks, so that memory does not grow with the number of records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Int64

from lidit_jax.data.index.open import Index

ASPECTS = ("1:2", "9:16", "2:3", "3:4", "1:1", "4:3", "3:2", "16:9", "2:1")
"""Aspect ratios, width to height; an image counts for the nearest one."""
SIDES = (64, 128, 256, 512, 768, 1024, 2048)
"""Limits between size classes of the shorter side, in pixels."""
_LONGEST = 2**16
_BLOCK = 2**20


@dataclass(frozen=True)
class Lengths:
    """Lengths of the captions of a column."""

    captions: int
    """Number of captions."""
    mean: float
    median: int
    most: int
    """95th percentile."""
    longest: int
    """Maximum, up to 65535."""

    @classmethod
    def of(cls, counts: Int64[np.ndarray, " lengths"]) -> Lengths:
        """Compute lengths from the number of captions per length; length 0 is no caption."""
        counts = counts.copy()
        counts[:1] = 0
        total = int(counts.sum())
        if not total:
            return cls(0, 0.0, 0, 0, 0)
        up_to = np.cumsum(counts)
        median, most, longest = (
            int(np.searchsorted(up_to, np.ceil(share * total))) for share in (0.5, 0.95, 1)
        )
        return cls(total, float(counts @ np.arange(len(counts)) / total), median, most, longest)


def statistics(index: Index) -> dict[str, Any]:
    """Return counts over an index; shapes, sizes and captions of usable records only."""
    bounds = np.log([_ratio(aspect) for aspect in ASPECTS])
    between = (bounds[1:] + bounds[:-1]) / 2
    aspects = np.zeros(len(ASPECTS), np.int64)
    sizes = np.zeros(len(SIDES) + 1, np.int64)
    lengths = {name: np.zeros(_LONGEST, np.int64) for name in index.caption_chars}
    for block in _blocks(len(index)):
        usable = index.problem[block] == 0
        width = index.width[block][usable].astype(np.float64)
        height = index.height[block][usable].astype(np.float64)
        near = np.searchsorted(between, np.log(width / height))
        aspects += np.bincount(near, minlength=len(aspects))
        side = np.searchsorted(SIDES, np.minimum(width, height), side="right")
        sizes += np.bincount(side, minlength=len(sizes))
        for name, chars in index.caption_chars.items():
            cut = np.minimum(chars[block][usable], _LONGEST - 1)
            lengths[name] += np.bincount(cut, minlength=_LONGEST)
    return {
        "source": index.source,
        "fingerprint": index.fingerprint,
        "records": len(index),
        "usable": int(aspects.sum()),
        "problems": dict(index.counts),
        "aspects": dict(zip(ASPECTS, aspects.tolist(), strict=True)),
        "sizes": dict(zip(_size_names(), sizes.tolist(), strict=True)),
        "characters": {name: asdict(Lengths.of(counts)) for name, counts in lengths.items()},
    }


def usable_sample(index: Index, count: int, seed: int) -> list[int]:
    """Return a random sample of usable records, in order; all if there are fewer."""
    usable = np.flatnonzero(index.problem[:] == 0)
    if len(usable) > count:
        usable = np.random.default_rng(seed).choice(usable, count, replace=False, shuffle=False)
    return sorted(usable.tolist())


def _blocks(records: int) -> Iterator[slice]:
    return (slice(begin, begin + _BLOCK) for begin in range(0, records, _BLOCK))


def _ratio(aspect: str) -> float:
    width, _, height = aspect.partition(":")
    return int(width) / int(height)


def _size_names() -> list[str]:
    between = [f"{low}-{high - 1}" for low, high in pairwise(SIDES)]
    return [f"below {SIDES[0]}", *between, f"{SIDES[-1]} and more"]
