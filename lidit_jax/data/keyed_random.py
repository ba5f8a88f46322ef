"""Random numbers and orders that are functions of a key: the same on every machine, in any order.

All of it is arithmetic of whole numbers on arrays, so that no state is kept and nothing depends on
how many processes ask.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64, Int64, UInt64

from lidit_jax.data.digests import short_digest

_ROUNDS = 24
"""Rounds of the shuffle: orders of many places need four, those of five places all of them."""
_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def keyed_bits(key: int, *numbers: Int64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """64 random bits for each row of some columns.

    The mixing is that of SplitMix64 (Steele, Lea, Flood 2014), one column after the other.

    Args:
      key: of this use, from `subkey`; other keys give independent bits.
      numbers: columns of one length.
    """
    bits = np.full(len(numbers[0]), key, np.uint64)
    for column in numbers:
        bits = _mixed(bits ^ _mixed(column.astype(np.uint64) + np.uint64(_GOLDEN)))
    return bits


def keyed_share(key: int, *numbers: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """A random number from 0 to below 1 for each row; see `keyed_bits`."""
    return (keyed_bits(key, *numbers) >> np.uint64(11)).astype(np.float64) / 2.0**53


def subkey(seed: int, *parts: int | str) -> int:
    """A key for one use of a seed: each use, by its name and numbers, has its own."""
    return int.from_bytes(short_digest(*(str(part).encode() for part in (seed, *parts))), "little")


def shuffled(
    places: Int64[np.ndarray, " n"], count: int, keys: UInt64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Where each place of 0 … count - 1 goes in a random order: a permutation, without an array.

    A Feistel network over the cells of a rectangle with sides near √count; what falls outside of
    `count`, less than one side of it, goes around once more.

    Args:
      places: from 0 to below `count`.
      count: size of what is shuffled, at most 2^62.
      keys: of the order that each place belongs to.
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
