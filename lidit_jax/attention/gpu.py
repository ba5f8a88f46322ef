"""Attention on GPUs: cuDNN's flash attention where it supports the types and shapes, else XLA's."""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from lidit_jax.attention.names import ATTENTION_OUTPUT

_WIDEST_HEAD = 128
"""Wider heads require Hopper or later."""


def gpu_attention(
    q: Float[Array, "B N H K"],
    k: Float[Array, "B S G K"],
    v: Float[Array, "B S G K"],
    mask: Bool[Array, "B S"] | None = None,
    *,
    causal: bool = False,
    query_offset: int = 0,
    scale: float | None = None,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "B N H K"]:
    """Compute the same as `reference_attention`, with the same arguments, on a GPU."""
    compute = functools.partial(
        jax.nn.dot_product_attention, scale=scale, implementation=implementation
    )
    N, S = q.shape[1], k.shape[1]
    # Policies keep cuDNN's output by its primitive; naming it too would keep a second copy.
    named = implementation == "xla"
    if mask is None and (not causal or query_offset == 0):
        out = compute(q, k, v, is_causal=causal)
        return checkpoint_name(out, ATTENTION_OUTPUT) if named else out
    valid = jnp.ones((q.shape[0], S), bool) if mask is None else mask
    allowed = jnp.broadcast_to(valid[:, None, None, :], (q.shape[0], 1, N, S))
    if causal:
        allowed &= jnp.tril(jnp.ones((N, S), bool), query_offset)
    # cuDNN's backward pass with a mask requires even lengths.
    allowed = jnp.pad(allowed, ((0, 0), (0, 0), (0, N % 2), (0, S % 2)))
    q, k, v = (jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0))) for x in (q, k, v))
    # A row without a valid key attends to all, to avoid dividing by zero, and is then set to 0.
    seen = jnp.any(allowed, axis=-1, keepdims=True)
    out = compute(q, k, v, mask=allowed | ~seen)
    out = jnp.where(seen.swapaxes(1, 2), out, 0)[:, :N]
    return checkpoint_name(out, ATTENTION_OUTPUT) if named else out


def cudnn_difference() -> float:
    """Measure how much cuDNN's forward and backward passes differ from XLA's on this GPU.

    Returns:
      The largest difference relative to the largest value, over outputs and gradients in
      bfloat16: a few thousandths if cuDNN works correctly.

    Raises:
      Exception: cuDNN's own error, if it does not work.
    """
    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (2, 128, 4, 64), jnp.bfloat16) for key in keys)

    def both(implementation: Literal["cudnn", "xla"]) -> list[jax.Array]:
        def total(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
            out = gpu_attention(q, k, v, implementation=implementation)
            return jnp.sum(out.astype(jnp.float32) ** 2), out

        gradients, out = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(q, k, v)
        return [value.astype(jnp.float32) for value in (out, *gradients)]

    pairs = zip(both("cudnn"), both("xla"), strict=True)
    return max(float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b))) for a, b in pairs)


def cudnn_supports(dtype: DTypeLike, head_width: int) -> bool:
    """Return whether cuDNN's kernel supports this type and head width."""
    half = dtype in (jnp.bfloat16, jnp.float16)
    return half and head_width % 8 == 0 and head_width <= _WIDEST_HEAD
