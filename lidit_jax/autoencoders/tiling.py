"""Decode a large image in overlapping tiles, so that memory does not grow with its size.

Like diffusers' `enable_tiling`, it blends neighbors linearly over a quarter of a tile. Unlike it,
all tiles have the same size and are spaced evenly over the image: only one decoder is compiled, and
there are no slivers at the borders, whose GroupNorm statistics would differ from the whole image's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_OVERLAP = 0.25
MINIMUM_TILE = 4
"""Smallest tile, in latent pixels: a quarter of it is a whole pixel."""


def tiled_decode(
    decode: Callable[[Float[Array, "B h w C"]], Float[Array, "B H W 3"]],
    latent: Float[Array, "B h w C"],
    tile: int,
    scale: int,
) -> Float[Array, "B H W 3"]:
    """Decode images one at a time, each tile by tile.

    Args:
      decode: function from a latent of any size to its image.
      latent: of any size.
      tile: side of a tile, at least `MINIMUM_TILE` latent pixels; a shorter side is one tile.
      scale: image pixels per latent pixel, along each side.
    """
    (top, row_weights), (left, column_weights) = (
        tile_axis(length, tile, scale) for length in latent.shape[1:3]
    )
    rows, columns = (grid.ravel() for grid in np.indices((len(top), len(left))))
    tiles = (top[rows], left[columns], row_weights[rows], column_weights[columns])
    height, width = (min(tile, length) for length in latent.shape[1:3])

    def one_image(z: Float[Array, "h w C"]) -> Float[Array, "H W 3"]:
        def add(image: Float[Array, "H W 3"], tile: tuple) -> tuple[Float[Array, "H W 3"], None]:
            y, x, row_weight, column_weight = tile
            part = jax.lax.dynamic_slice(z, (y, x, 0), (height, width, z.shape[-1]))
            weighted = decode(part[None])[0] * row_weight[:, None, None] * column_weight[:, None]
            corner = (y * scale, x * scale, 0)
            before = jax.lax.dynamic_slice(image, corner, weighted.shape)
            return jax.lax.dynamic_update_slice(image, before + weighted, corner), None

        image = jnp.zeros((z.shape[0] * scale, z.shape[1] * scale, 3))
        return jax.lax.scan(add, image, tiles)[0]

    return jax.lax.map(one_image, latent)


def tile_axis(
    length: int, tile: int, scale: int
) -> tuple[np.ndarray, Float[np.ndarray, "tiles pixels"]]:
    """Return the first latent pixel of each tile along a side, and the weights of its image pixels.

    The weights of all tiles over a pixel sum to 1; they fall linearly toward each inner edge.
    """
    tile = min(tile, length)
    ramp = int(tile * _OVERLAP)
    count = 1 + math.ceil((length - tile) / max(tile - ramp, 1))
    starts = np.round(np.linspace(0, length - tile, count)).astype(np.int32)
    position = np.arange(tile * scale) + 0.5
    weights = np.ones((count, tile * scale))
    weights[1:] *= np.minimum(1.0, position / (ramp * scale or 1))
    weights[:-1] *= np.minimum(1.0, position[::-1] / (ramp * scale or 1))
    total = np.zeros(length * scale)
    for start, weight in zip(starts, weights, strict=True):
        total[start * scale : (start + tile) * scale] += weight
    for start, weight in zip(starts, weights, strict=True):
        weight /= total[start * scale : (start + tile) * scale]
    return starts, weights.astype(np.float32)
