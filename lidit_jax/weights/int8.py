"""Weights kept as 8-bit integers: a quarter of float32, half of bfloat16.

Only the frozen language models use it. The scale belongs to an output channel, so it leaves the
matrix product: x·W = (x·Q)·s, with s_j = max_i |W_ij| / 127 and Q = round(W / s).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

_LARGEST = 127


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Int8Weight:
    """A linear map, or a stack of them."""

    values: Int8[Array, "*L D E"]
    scale: Float[Array, "*L E"]
    """Float32; an output channel of zeros has scale 1."""


def quantize(weight: Float[Array, "*L D E"]) -> Int8Weight:
    """Rounds to the nearest of 255 levels, symmetric around zero."""
    weight = weight.astype(jnp.float32)
    largest = jnp.max(jnp.abs(weight), axis=-2)
    scale = jnp.where(largest > 0, largest / _LARGEST, 1.0)
    return Int8Weight(jnp.round(weight / scale[..., None, :]).astype(jnp.int8), scale)


def dot(
    x: Float[Array, "N D"], weight: Int8Weight, precision: jax.lax.PrecisionLike = None
) -> Float[Array, "N E"]:
    """x·W in the type of x; the products are summed and scaled in float32."""
    y = jnp.dot(
        x,
        weight.values.astype(x.dtype),
        precision=precision,
        preferred_element_type=jnp.float32,
    )
    return (y * weight.scale).astype(x.dtype)
