"""Int8 weight quantization, for the frozen language models only.

The scale is per output channel, so it factors out of the matrix product: x·W = (x·Q)·s, with s_j =
max_i |W_ij| / 127 and Q = round(W / s).
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
    """Quantized weight of a linear map, or a stack of them."""

    values: Int8[Array, "*L D E"]
    scale: Float[Array, "*L E"]
    """Float32 scale per output channel; 1 for a channel of zeros."""


def quantize(weight: Float[Array, "*L D E"]) -> Int8Weight:
    """Quantize a weight to 255 levels per output channel, symmetric around zero."""
    weight = weight.astype(jnp.float32)
    largest = jnp.max(jnp.abs(weight), axis=-2)
    scale = jnp.where(largest > 0, largest / _LARGEST, 1.0)
    return Int8Weight(jnp.round(weight / scale[..., None, :]).astype(jnp.int8), scale)


def dot(
    x: Float[Array, "N D"], weight: Int8Weight, precision: jax.lax.PrecisionLike = None
) -> Float[Array, "N E"]:
    """Return x·W in the type of x; the products are summed and scaled in float32."""
    y = jnp.dot(
        x,
        weight.values.astype(x.dtype),
        precision=precision,
        preferred_element_type=jnp.float32,
    )
    return (y * weight.scale).astype(x.dtype)
