"""Operations shared by all encoders: linear layers, norms, positions and the layer scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.spmd import with_logical_constraint
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int32

from lidit_jax.encoders.layer_choice import Layers, blocks_below
from lidit_jax.weights import int8


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """Return the type for norms, RoPE and softmax: float32, or the model's type if wider."""
    return jnp.promote_types(dtype, jnp.float32)


def precision(dtype: DTypeLike) -> jax.lax.Precision:
    """Return the matmul precision: exact for float32 and wider, the default for narrower types.

    By default TPUs round float32 operands to bfloat16 and GPUs to TF32.
    """
    return (
        jax.lax.Precision.HIGHEST if at_least_float32(dtype) == dtype else jax.lax.Precision.DEFAULT
    )


def linear(
    x: Float[Array, "B S D"],
    weight: Float[Array, "D E"] | int8.Int8Weight,
    bias: Float[Array, " E"] | None = None,
) -> Float[Array, "B S E"]:
    """Return x·weight + bias as one product over all tokens, which is faster than B small ones."""
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
    """Apply RMSNorm (https://arxiv.org/abs/1910.07467) with a scale.

    With `offset` the weights are stored as scale - 1, as Gemma does; the sum and the product stay
    in `at_least_float32` precision, because bfloat16 would round the sum.
    """
    y = x.astype(at_least_float32(x.dtype))
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + epsilon)
    if offset:
        return (y * (1 + scale.astype(y.dtype))).astype(x.dtype)
    return y.astype(x.dtype) * scale


def layer_norm(
    x: Float[Array, "*N D"], scale: Float[Array, " D"], bias: Float[Array, " D"], epsilon: float
) -> Float[Array, "*N D"]:
    """Apply LayerNorm (https://arxiv.org/abs/1607.06450), in `at_least_float32` precision."""
    y = x.astype(at_least_float32(x.dtype))
    y = y - jnp.mean(y, axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + epsilon)
    return (y * scale + bias).astype(x.dtype)


def positions_of(mask: Bool[Array, "B S"]) -> Int32[Array, "B S"]:
    """Return the position of each token, counting valid tokens only, so left padding is allowed."""
    return jnp.maximum(jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1, 0)


def split_by_rows(x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
    """Shard activations over the batch, so that XLA gathers weights instead of activations.

    Without a mesh this does nothing.
    """
    return with_logical_constraint(x, ("batch", None, None))


def embedding_lookup(table: Float[Array, "V D"], ids: Int32[Array, "B S"]) -> Float[Array, "B S D"]:
    """Return `table[ids]` without gathering the table.

    On a mesh each device reads its shard of the channels for the rows of its neighbors too, and
    the results are exchanged: the table, which may be large, stays sharded.
    """
    ids = with_logical_constraint(ids, ("copies", None))
    return split_by_rows(with_logical_constraint(table[ids], ("copies", None, "embed")))


def layer_at(layers: dict[str, Array], index: Array) -> dict[str, Array]:
    """Return the parameters of one block from the stacked parameters.

    Scanning over indices instead of over the stack runs the first n blocks without copying their
    weights.
    """
    return jax.tree.map(
        lambda stack: jax.lax.dynamic_index_in_dim(stack, index, keepdims=False), layers
    )


def scan_blocks(
    block: Callable[[dict[str, Array], Array], Array],
    layers: dict[str, Array],
    x: Float[Array, "B S D"],
    wanted: Layers | None,
    num_layers: int,
    finish: Callable[[Array], Array] = lambda x: x,
) -> Array:
    """Run blocks; return the `wanted` states (`scan_states`), or of None all as [blocks, B, S, D].

    Without `wanted` the last state is not passed to `finish`.
    """

    def step(x: Array, index: Array) -> tuple[Array, Array | None]:
        x = split_by_rows(block(layer_at(layers, index), x))
        return x, x if wanted is None else None

    last = num_layers if wanted is None else wanted
    states, every = scan_states(step, x, last, num_layers, finish)
    return states if every is None else every


def scan_states(
    step: Callable[[Array, Array], tuple[Array, Any]],
    x: Float[Array, "B S D"],
    wanted: Layers,
    num_layers: int,
    finish: Callable[[Array], Array] = lambda x: x,
) -> tuple[Float[Array, "B S *layers D"], Any]:
    """Run the blocks below the highest wanted state.

    Args:
      step: `(x, index) -> (x, kept)` of the block with that index.
      x: input of the first block, which is state 0.
      wanted: one state, or several.
      num_layers: number of blocks; it is also the number of the last state.
      finish: final norm, applied to the last state alone.

    Returns:
      The state [B, S, D], or several in their order as [B, S, n, D], and what `step` has kept,
      stacked over the blocks that ran.
    """
    if isinstance(wanted, int):
        blocks = blocks_below(wanted, num_layers)
        last, kept = jax.lax.scan(step, x, jnp.arange(blocks))
        return finish(last) if blocks == num_layers else last, kept
    after = [blocks_below(layer, num_layers) for layer in wanted]
    rising, blocks = sorted(after), max(after)
    # Every output is written to the slot of the next wanted state, whose own output is the last.
    slots = jnp.asarray(np.searchsorted(rising, np.arange(blocks + 1) + 1), jnp.int32)

    def keep(carry: tuple[Array, Array], index: Array) -> tuple[tuple[Array, Array], Any]:
        x, kept = step(carry[0], index)
        states = jax.lax.dynamic_update_index_in_dim(carry[1], x, slots[index], 2)
        return (x, with_logical_constraint(states, ("batch", None, None, None))), kept

    states = jnp.repeat(x[:, :, None], len(rising), axis=2)
    (last, states), kept = jax.lax.scan(keep, (x, states), jnp.arange(blocks))
    if blocks == num_layers:
        states = states.at[:, :, -1].set(finish(last))
    if rising != after:
        states = states[:, :, np.searchsorted(rising, after)]
    return states, kept
