"""The operations that all encoders share: linear maps, norms, places, the layer scan."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax.linen.spmd import with_logical_constraint
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int32

from lidit_jax.errors import LiditError
from lidit_jax.weights import int8


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """The type of norms, rotations and softmax: float32, or wider where the model is."""
    return jnp.promote_types(dtype, jnp.float32)


def precision(dtype: DTypeLike) -> jax.lax.Precision:
    """Exact products from float32 up, on every backend; the hardware's own for narrower types.

    Without it TPUs round float32 operands to bfloat16 and GPUs to TF32.
    """
    return (
        jax.lax.Precision.HIGHEST if at_least_float32(dtype) == dtype else jax.lax.Precision.DEFAULT
    )


def linear(
    x: Float[Array, "B S D"],
    weight: Float[Array, "D E"] | int8.Int8Weight,
    bias: Float[Array, " E"] | None = None,
) -> Float[Array, "B S E"]:
    """x·weight + bias, with the tokens flattened: one large product is faster than B small ones."""
    B, S, D = x.shape
    rows = x.reshape(B * S, D)
    if isinstance(weight, int8.Int8Weight):
        y = int8.dot(rows, weight, precision=precision(x.dtype))
    else:
        y = jnp.dot(rows, weight, precision=precision(x.dtype))
    y = y.reshape(B, S, -1)
    return y if bias is None else y + bias


def rms_norm(
    x: Float[Array, "*N D"], scale: Float[Array, " D"], epsilon: float, *, offset: bool = False
) -> Float[Array, "*N D"]:
    """x over its root mean square (https://arxiv.org/abs/1910.07467), times `scale`.

    With `offset` the weights are stored as scale - 1, as Gemma does; the sum and the product stay
    in `at_least_float32` precision, because bfloat16 would round the sum.
    """
    y = x.astype(at_least_float32(x.dtype))
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + epsilon)
    if offset:
        return (y * (1 + scale.astype(y.dtype))).astype(x.dtype)
    return y.astype(x.dtype) * scale


def positions_of(mask: Bool[Array, "B S"]) -> Int32[Array, "B S"]:
    """Position of each valid token among the valid ones, so that padding on the left is free."""
    return jnp.maximum(jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1, 0)


def split_by_rows(x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
    """Tells XLA that devices share the rows: it then gathers a block's weights, never activations.

    Outside of a mesh it says nothing.
    """
    return with_logical_constraint(x, ("batch", None, None))


def embedding_lookup(table: Float[Array, "V D"], ids: Int32[Array, "B S"]) -> Float[Array, "B S D"]:
    """`table[ids]`. On a mesh each device reads its own channels of the table for the rows of its
    neighbors too, and the results change places: the table, which may be large, stays where it is.
    """
    ids = with_logical_constraint(ids, ("copies", None))
    return split_by_rows(with_logical_constraint(table[ids], ("copies", None, "embed")))


def layer_at(layers: dict[str, Array], index: Array) -> dict[str, Array]:
    """The parameters of one block out of the stacked ones.

    Scanning over indices instead of over the stack lets a caller run the first n blocks without
    copying n blocks of weights.
    """
    return jax.tree.map(
        lambda stack: jax.lax.dynamic_index_in_dim(stack, index, keepdims=False), layers
    )


def scan_blocks(
    block: Callable[[dict[str, Array], Array], Array],
    layers: dict[str, Array],
    x: Float[Array, "B S D"],
    blocks: int,
    *,
    keep_all: bool,
) -> Array:
    """Runs the first `blocks` blocks; returns the last output, or [blocks, B, S, D] of all."""

    def step(x: Array, index: Array) -> tuple[Array, Array | None]:
        x = split_by_rows(block(layer_at(layers, index), x))
        return x, x if keep_all else None

    last, states = jax.lax.scan(step, x, jnp.arange(blocks))
    return last if states is None else states


def blocks_below(layer: int, num_layers: int) -> int:
    """How many blocks lead to `hidden_states[layer]`, of which there are `num_layers` + 1.

    Raises:
      LiditError: when there is no such layer.
    """
    blocks = layer if layer >= 0 else num_layers + 1 + layer
    if not 0 <= blocks <= num_layers:
        raise LiditError(
            f"layer {layer} does not exist: this encoder has {num_layers} blocks, "
            f"use -{num_layers + 1} to {num_layers}"
        )
    return blocks
