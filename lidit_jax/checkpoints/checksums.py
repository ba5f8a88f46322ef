"""A number for each array that changes with any bit of it, and not with where its parts lie."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_GOLDEN = np.uint32(0x9E3779B1)
_PART = 2**24
"""Bytes of a NumPy array that are copied to the device at once."""


def checksums(tree: Any) -> dict[str, int]:
    """A 32-bit checksum for each array of a tree, by its name in the tree.

    Each element's bits are mixed with its place and summed, modulo 2^32, where the array lies: on
    any mesh and any number of processes the result is the same, and no array is gathered. It finds
    damage by accident, of which it overlooks one in four billion; it is no signature.

    Args:
      tree: of arrays of at most 32 bits an element.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    # One program a shape compiles sooner than one of all. Each is waited for: many collectives in
    # flight can block each other on several CPU devices.
    return {
        jax.tree_util.keystr(path): _in_parts(leaf)
        if isinstance(leaf, np.ndarray) and leaf.ndim
        else int(jax.block_until_ready(_checksum(leaf)))
        for path, leaf in leaves
    }


def verify_checksums(read: dict[str, int], expected: dict[str, int] | None) -> None:
    """Raises `ValueError` for arrays that are not what was saved; older checkpoints cannot tell."""
    if expected is None:
        return
    changed = [name for name, value in read.items() if expected.get(name) != value]
    if changed:
        raise ValueError(
            f"{changed[0]} and {len(changed) - 1} more of {len(read)} arrays are not as they were "
            "saved"
        )


def _in_parts(array: np.ndarray) -> int:
    """The checksum of an array in NumPy's memory, of which a device never holds much."""
    elements = math.prod(array.shape[1:])
    rows = max(1, _PART // max(1, elements * array.itemsize))
    parts = (
        _checksum(array[row : row + rows], np.uint32(row * elements % 2**32))
        for row in range(0, len(array), rows)
    )
    return sum(map(int, parts)) % 2**32


@jax.jit
def _checksum(leaf: jax.Array, first: np.uint32 | int = 0) -> jax.Array:
    """Of an array, or of the rows of one whose first element has the place `first` in it."""
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    width = leaf.dtype.itemsize * 8
    bits = jax.lax.bitcast_convert_type(leaf, f"uint{width}").astype(jnp.uint32)
    # The place in the whole array, wherever its parts lie; it may wrap around in huge ones.
    place = jnp.full(leaf.shape, first, jnp.uint32)
    for axis in range(leaf.ndim):
        stride = np.uint32(math.prod(leaf.shape[axis + 1 :]) % 2**32)
        place += jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) * stride
    return jnp.sum(_mixed(bits + _mixed(place * _GOLDEN + np.uint32(1))), dtype=jnp.uint32)


def _mixed(value: jax.Array) -> jax.Array:
    """Spreads each bit over all 32: the last steps of MurmurHash3 (Appleby, public domain)."""
    value = (value ^ (value >> 16)) * np.uint32(0x85EBCA6B)
    value = (value ^ (value >> 13)) * np.uint32(0xC2B2AE35)
    return value ^ (value >> 16)
