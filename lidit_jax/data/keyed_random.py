"""Random numbers and permutations computed from a key, identical on every machine.

All are integer functions of arrays, without state, so that results do not depend on the number of
processes.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from lidit_jax.data.digests import short_digest

_ROUNDS = 24
"""Rounds of the shuffle: four suffice for many places, all are needed for five places."""
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def keyed_bits(key: int, *numbers: Int64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Return 64 random bits per row of some columns.

    The mixing function is that of SplitMix64 (Steele, Lea, Flood 2014), per column in turn.

    Args:
      key: key of this use, from `subkey`; other keys give independent bits.
      numbers: columns of one length.
    """
    bits = np.full(len(numbers[0]), key, np.uint64)
    for column in numbers:
        bits = _mixed(bits ^ _mixed(column.astype(np.uint64) + np.uint64(_GOLDEN)))
    return bits


def keyed_share(key: int, *numbers: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Return a random number in [0, 1) per row; see `keyed_bits`."""
    return (keyed_bits(key, *numbers) >> np.uint64(11)).astype(np.float64) / 2.0**53


def subkey(seed: int, *parts: int | str) -> int:
    """Return the key for one use of a seed, identified by a name and numbers."""
    return int.from_bytes(short_digest(*(str(part).encode() for part in (seed, *parts))), "little")


def shuffled(
    places: Int64[np.ndarray, " n"], count: int, keys: UInt64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Return the image of each place under a random permutation of 0 … count - 1, without an array.

    It is a Feistel network over the cells of a rectangle with sides near √count; results outside
    of `count`, fewer than one side, are permuted again.

    Args:
      places: from 0 to below `count`.
      count: size of the permutation, at most 2^62.
      keys: key of the permutation, per place.
    """
    # With an odd number of both, every order would be an even permutation of the cells.
    rows = 2 * max(math.isqrt(count) // 2, 1)
    columns = -(-count // rows)
    result = _rounds(places, rows, columns, keys)
    outside = np.flatnonzero(result >= count)
    while len(outside):
        result[outside] = _rounds(result[outside], rows, columns, keys[outside])
        outside = outside[result[outside] >= count]
    return result


def _rounds(
    places: Int64[np.ndarray, " n"], rows: int, columns: int, keys: UInt64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    row, column = (part.astype(np.uint64) for part in np.divmod(places, columns))
    for turn in range(0, _ROUNDS, 2):
        row = (row + _mixed(column ^ _mixed(keys + np.uint64(turn)))) % np.uint64(rows)
        column = (column + _mixed(row ^ _mixed(keys + np.uint64(turn + 1)))) % np.uint64(columns)
    return (row * np.uint64(columns) + column).astype(np.int64)


def _mixed(bits: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(_FIRST)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(_SECOND)
    return bits ^ (bits >> np.uint64(31))
