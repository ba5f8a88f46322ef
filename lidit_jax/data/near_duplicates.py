"""Detection of near-duplicate images: perceptual hashes that differ in at most a few bits."""

from __future__ import annotations

import itertools
import math

import numpy as np
from jaxtyping import Bool, Int64, UInt64

_BITS = 64


def copies(
    hashes: UInt64[np.ndarray, " n"], rank: Int64[np.ndarray, " n"], distance: int
) -> Bool[np.ndarray, " n"]:
    """Return which records are duplicates of records that are kept.

    Records are visited from the best to the worst: each is kept unless a kept one differs from it
    by at most `distance` bits. So kept records are farther apart, and every duplicate is near a
    kept one; a chain of small changes does not count as one image.

    Args:
      hashes: hash of each record.
      rank: preference among duplicates, lower is better; no two are equal.
      distance: Hamming distance in bits, from 0; from about 8, memory and time are high.
    """
    order = np.lexsort((rank, hashes))
    first = np.ones(len(hashes), bool)
    first[1:] = hashes[order[1:]] != hashes[order[:-1]]
    result = np.ones(len(hashes), bool)
    best = order[first]
    best = best[np.argsort(rank[best])]  # the preferred record per hash, best first
    result[best] = _near_better(hashes[best], distance) if distance else False
    return result


def _near_better(hashes: UInt64[np.ndarray, " m"], distance: int) -> Bool[np.ndarray, " m"]:
    """Return which of different hashes, sorted from best to worst, are near a better kept one."""
    better, worse = _near_pairs(hashes, distance)
    dropped = np.zeros(len(hashes), bool)
    while len(better):
        # A hash whose better neighbors are all dropped is kept, and its neighbors are dropped.
        undecided = np.zeros(len(hashes), bool)
        undecided[worse] = True
        stays = ~undecided[better]
        dropped[worse[stays]] = True
        left = ~(stays | dropped[better] | dropped[worse])
        better, worse = better[left], worse[left]
    return dropped


def _near_pairs(
    hashes: UInt64[np.ndarray, " m"], distance: int
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """Return all pairs of near hashes, as indices, the smaller one first.

    If two hashes differ in d bits, at least k of their d + k parts are equal: hashes are sorted by
    each choice of k parts, and compared where those are equal.
    """
    equal = _equal_parts(len(hashes), distance)
    edges = [_BITS * part // (distance + equal) for part in range(distance + equal + 1)]
    parts = [(1 << high) - (1 << low) for low, high in itertools.pairwise(edges)]
    found = [
        _pairs_of_equal_bits(hashes, np.uint64(sum(chosen)), distance)
        for chosen in itertools.combinations(parts, equal)
    ]
    pairs = np.unique(np.concatenate(found, axis=1), axis=1)
    return pairs[0], pairs[1]


def _equal_parts(count: int, distance: int) -> int:
    """Return the number of equal parts that minimizes the work of sorting and comparing."""

    def work(equal: int) -> float:
        bits = _BITS * equal // (distance + equal)
        compared = count / 2 ** (bits + 1)
        return math.comb(distance + equal, equal) * (math.log2(count + 2) + compared)

    return min(range(1, 7), key=work)


def _pairs_of_equal_bits(
    hashes: UInt64[np.ndarray, " m"], mask: np.uint64, distance: int
) -> Int64[np.ndarray, "2 p"]:
    """Return the near pairs among hashes that are equal in the bits of a mask."""
    order = np.argsort(hashes & mask, kind="stable")
    kept = hashes[order]
    bits = kept & mask
    found = []
    place = np.arange(len(hashes))
    for step in itertools.count(1):
        place = place[place < len(hashes) - step]
        place = place[bits[place] == bits[place + step]]
        if not len(place):
            break
        near = np.bitwise_count(kept[place] ^ kept[place + step]) <= distance
        pair = np.stack([order[place[near]], order[place[near] + step]])
        found.append(np.sort(pair, axis=0))
    return np.concatenate(found, axis=1) if found else np.zeros((2, 0), np.int64)
