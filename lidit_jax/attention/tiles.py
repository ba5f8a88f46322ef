"""Tile sizes of the splash kernel: how much of queries and keys a TPU core holds at once.

A tile must divide its padded sequence and fit the core's vector memory. Large tiles pay: 1024
instead of 128 made the kernel a third faster on v6e (apple/axlearn, pull request 958).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lidit_jax.attention.tuned import Shape, tuned_tiles
from lidit_jax.hardware.devices import tpu_generation

LANES = 128
"""Every tile is a multiple of the width of a vector register."""
_OVERHEAD = 51
"""Cost of a tile beside its work, in tokens: what the third of axlearn's measurement implies."""


@dataclass(frozen=True)
class Tiles:
    """Tokens in a tile; forward and backward kernels share them."""

    query: int
    key: int
    key_compute: int
    """Keys of one inner product; divides `key`."""


_LARGEST = (Tiles(1024, 2048, 512), Tiles(512, 1024, 512))
"""For 16-bit and for 32-bit inputs of up to 128 channels a head: forward and backward compile for
v5e and v5p within the vector memory that a kernel is given without flags; queries of 2048 do not.
Large tiles of keys matter twice: the backward kernel writes the queries' gradient once for each."""
_LARGEST_BY_GENERATION = {"v6e": (Tiles(2048, 2048, 512), Tiles(512, 1024, 512))}
"""Generations that fit more."""
_WIDE_MATRIX_UNIT = {"v6e", "tpu7x"}
"""Generations that multiply 256 at a time; a multiple of 128 leaves them half idle."""


def generation_of(device_kind: str) -> str:
    """ "v5e", "v5p", ... of a device kind as JAX spells it ("TPU v5 lite"); "v5e" if unknown.

    The unknown get the smallest memory's tiles: slow, but they fit.
    """
    return tpu_generation(device_kind) or "v5e"


def choose_tiles(
    generation: str, head_width: int, queries: int, keys: int, item_bytes: int
) -> Tiles:
    """The tiles for N queries and S keys: tuned ones, where `lidit tune` has found some.

    Args:
      generation: as `generation_of` names it.
      head_width: channels K of a head.
      queries: tokens N on one device.
      keys: tokens S on one device.
      item_bytes: size of one number of the inputs.
    """
    tuned = tuned_tiles(Shape(generation, head_width, queries, keys)) if item_bytes <= 2 else None
    if tuned:
        return Tiles(*tuned)
    largest = _LARGEST_BY_GENERATION.get(generation, _LARGEST)[0 if item_bytes <= 2 else 1]
    # Memory goes with the head width, which the kernel pads to 128.
    shrink = math.ceil(head_width / LANES)
    step = 2 * LANES if generation in _WIDE_MATRIX_UNIT else LANES
    query = _cheapest(queries, largest.query // shrink, step)
    key = _cheapest(keys, largest.key // shrink, step)
    fitting = [c for c in range(LANES, largest.key_compute + 1, LANES) if key % c == 0]
    return Tiles(query, key, fitting[-1])


def padded(length: int, tile: int) -> int:
    """The next multiple of `tile`."""
    return -(-length // tile) * tile


def _cheapest(length: int, largest: int, step: int) -> int:
    """The tile with the least padding plus overhead."""
    if length <= step:
        return padded(length, LANES)
    candidates = range(step, max(largest, step) + 1, step)
    return min(candidates, key=lambda tile: (padded(length, tile) * (1 + _OVERHEAD / tile), tile))
