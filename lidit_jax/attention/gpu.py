"""Attention on GPUs: cuDNN's flash attention where its types and shapes allow, else XLA's own."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from lidit_jax.attention.names import ATTENTION_OUTPUT

_WIDEST_HEAD = 128
"""Wider heads need Hopper or later."""


def gpu_attention(
    q: Float[Array, "B N H K"],
    k: Float[Array, "B S H K"],
    v: Float[Array, "B S H K"],
    mask: Bool[Array, "B S"] | None = None,
    *,
    causal: bool = False,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "B N H K"]:
    """Equals `reference_attention`; see there for the arguments.

    cuDNN's backward pass with a mask wants even lengths: N and S are padded by one where odd.
    """
    B, N, _, _ = q.shape
    S = k.shape[1]
    if mask is None and S % 2 and implementation == "cudnn" and not causal:
        mask = jnp.ones((B, S), bool)
    if mask is None:
        out = jax.nn.dot_product_attention(q, k, v, is_causal=causal, implementation=implementation)
        return checkpoint_name(out, ATTENTION_OUTPUT)
    allowed = mask[:, None, None, :]
    if causal:
        allowed &= jnp.tril(jnp.ones((N, S), bool))
    allowed = jnp.broadcast_to(allowed, (B, 1, N, S))
    any_key = jnp.any(allowed, axis=-1)[:, 0, :, None, None]
    # An even length, and nothing to divide by zero: empty rows see every key and are erased below.
    open_rows = jnp.pad(
        allowed | ~any_key[:, None, :, :, 0], ((0, 0), (0, 0), (0, N % 2), (0, S % 2))
    )
    pad = lambda x: jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0)))  # noqa: E731
    out = jax.nn.dot_product_attention(
        pad(q), pad(k), pad(v), mask=open_rows, implementation=implementation
    )
    return checkpoint_name(jnp.where(any_key, out[:, :N], 0), ATTENTION_OUTPUT)


def cudnn_takes(dtype: jnp.dtype, head_width: int) -> bool:
    """Whether cuDNN's kernel exists for these inputs."""
    half = dtype in (jnp.bfloat16, jnp.float16)
    return half and head_width % 8 == 0 and head_width <= _WIDEST_HEAD
