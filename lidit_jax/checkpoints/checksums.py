"""Checksums of arrays that detect any changed bit and do not depend on sharding."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_GOLDEN = np.uint32(0x9E3779B1)
_PART = 2**24
"""Bytes of a NumPy array copied to the device at a time."""


def checksums(tree: Any) -> dict[str, int]:
    """Return a 32-bit checksum for each array of a tree, by its path in the tree.

    Each element's bits are hashed with its index and summed, modulo 2^32, on the array's devices:
    the result is the same for any mesh and any number of processes, and no array is gathered. It
    detects accidental damage, missing one case in four billion; it is not cryptographic.

    Args:
      tree: arrays of at most 32 bits per element.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    # One program per shape compiles faster than one for all. Each result is awaited, because many
    # collectives in flight can deadlock on several CPU devices.
    return {
        jax.tree_util.keystr(path): _in_parts(leaf)
        if isinstance(leaf, np.ndarray) and leaf.ndim
        else int(jax.block_until_ready(_checksum(leaf)))
        for path, leaf in leaves
    }


def verify_checksums(read: dict[str, int], expected: dict[str, int] | None) -> None:
    """Raise `ValueError` if arrays differ from those saved; `expected` is None if unknown."""
    if expected is None:
        return
    changed = [name for name, value in read.items() if expected.get(name) != value]
    if changed:
        raise ValueError(
            f"{changed[0]} and {len(changed) - 1} more of {len(read)} arrays are not as they were "
            "saved"
        )


def _in_parts(array: np.ndarray) -> int:
    """Return the checksum of a NumPy array, copying only a part to the device at a time."""
    elements = math.prod(array.shape[1:])
    rows = max(1, _PART // max(1, elements * array.itemsize))
    parts = (
        _checksum(array[row : row + rows], np.uint32(row * elements % 2**32))
        for row in range(0, len(array), rows)
    )
    return sum(map(int, parts)) % 2**32


@jax.jit
def _checksum(leaf: jax.Array, first: jax.Array | np.uint32 | int = 0) -> jax.Array:
    """Return the checksum of an array, or of rows of it, whose first element has index `first`."""
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    width = leaf.dtype.itemsize * 8
    bits = jax.lax.bitcast_convert_type(leaf, f"uint{width}").astype(jnp.uint32)
    # The index in the whole array, whatever its sharding; it may wrap around in huge arrays.
    place = jnp.full(leaf.shape, first, jnp.uint32)
    for axis in range(leaf.ndim):
        stride = np.uint32(math.prod(leaf.shape[axis + 1 :]) % 2**32)
        place += jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) * stride
    return jnp.sum(_mixed(bits + _mixed(place * _GOLDEN + np.uint32(1))), dtype=jnp.uint32)


def _mixed(value: jax.Array) -> jax.Array:
    """Spread each bit over all 32: the final steps of MurmurHash3 (Appleby, public domain)."""
    value = (value ^ (value >> 16)) * np.uint32(0x85EBCA6B)
    value = (value ^ (value >> 13)) * np.uint32(0xC2B2AE35)
    return value ^ (value >> 16)
