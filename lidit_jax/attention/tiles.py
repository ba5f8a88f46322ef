"""Tile sizes of the splash kernel: how many queries and keys a TPU core processes at once.

A tile must divide its padded sequence and fit the core's vector memory. Large tiles are faster:
1024 instead of 128 made the kernel a third faster on v6e (apple/axlearn, pull request 958).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lidit_jax.attention.tuned import Shape, tuned_tiles
from lidit_jax.hardware.devices import tpu_generation

LANES = 128
"""Every tile is a multiple of the width of a vector register."""
_OVERHEAD = 51
"""Fixed cost of a tile, in tokens, as implied by the third that axlearn measured."""


@dataclass(frozen=True)
class Tiles:
    """Tile sizes in tokens, shared by the forward and backward kernels."""

    query: int
    key: int
    key_compute: int
    """Keys per inner product; divides `key`."""


_LARGEST = (Tiles(1024, 2048, 512), Tiles(512, 1024, 512))
"""For 16-bit and for 32-bit inputs of up to 128 channels per head: forward and backward compile for
v5e and v5p within a kernel's default vector memory; query tiles of 2048 do not. Large key tiles
also save memory traffic: the backward kernel writes the queries' gradient once per key tile."""
_LARGEST_BY_GENERATION = {"v6e": (Tiles(2048, 2048, 512), Tiles(512, 1024, 512))}
"""Generations whose vector memory fits larger tiles."""
_WIDE_MATRIX_UNIT = {"v6e", "tpu7x"}
"""Generations with matrix units 256 wide, which odd multiples of 128 leave half idle."""


def generation_of(device_kind: str) -> str:
    """Return the TPU generation, such as "v5e", of a JAX device kind, such as "TPU v5 lite".

    Unknown kinds are treated as "v5e", whose tiles fit the smallest memory but are slow.
    """
    return tpu_generation(device_kind) or "v5e"


def choose_tiles(
    generation: str, head_width: int, queries: int, keys: int, item_bytes: int
) -> Tiles:
    """Return the tiles for N queries and S keys: those that `lidit tune` found, if any.

    Args:
      generation: as `generation_of` names it.
      head_width: channels K of a head.
      queries: tokens N on one device.
      keys: tokens S on one device.
      item_bytes: bytes per input value.
    """
    tuned = tuned_tiles(Shape(generation, head_width, queries, keys)) if item_bytes <= 2 else None
    if tuned:
        return Tiles(*tuned)
    largest = _LARGEST_BY_GENERATION.get(generation, _LARGEST)[0 if item_bytes <= 2 else 1]
    # Memory is proportional to the head width, which the kernel pads to 128.
    shrink = math.ceil(head_width / LANES)
    step = 2 * LANES if generation in _WIDE_MATRIX_UNIT else LANES
    query = _cheapest(queries, largest.query // shrink, step)
    key = _cheapest(keys, largest.key // shrink, step)
    fitting = [c for c in range(LANES, largest.key_compute + 1, LANES) if key % c == 0]
    return Tiles(query, key, fitting[-1])


def padded(length: int, tile: int) -> int:
    """Round a length up to a multiple of `tile`."""
    return -(-length // tile) * tile


def _cheapest(length: int, largest: int, step: int) -> int:
    """Return the tile with the lowest cost of padding plus overhead."""
    if length <= step:
        return padded(length, LANES)
    candidates = range(step, max(largest, step) + 1, step)
    return min(candidates, key=lambda tile: (padded(length, tile) * (1 + _OVERHEAD / tile), tile))
