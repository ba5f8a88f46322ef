"""Reference attention in plain JAX, which every faster kernel is tested against."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from lidit_jax.attention.names import ATTENTION_OUTPUT


def attention_weights(
    q: Float[Array, "B N H K"],
    k: Float[Array, "B S G K"],
    mask: Bool[Array, "B S"] | None = None,
    *,
    causal: bool = False,
    query_offset: int = 0,
    allowed: Bool[Array, "#B N S"] | None = None,
    scale: float | None = None,
    soft_cap: float | None = None,
    bias: Float[Array, "H N S"] | None = None,
    exact: bool = False,
) -> Float[Array, "B H N S"]:
    """Return the softmax of the scaled products, in float32 or wider, grouped-query heads included.

    Args:
      q: queries.
      k: keys; H/G query heads share each key head.
      mask: keys that may be attended to; None for all.
      causal: whether query i sees only keys 0..query_offset+i.
      query_offset: position of the first query among the keys.
      allowed: keys that each query may attend to, in addition to the above; None for all.
      scale: factor of the products; K**-0.5 by default.
      soft_cap: largest absolute score c, reached smoothly as c·tanh(score/c) (Gemma 2).
      bias: added to the scores (T5).
      exact: whether to compute float32 products in full precision on every device.

    Returns:
      Weights that sum to 1 over S; a row without any valid key is exactly 0, never NaN.
    """
    B, N, H, K = q.shape
    S, G = k.shape[1:3]
    options = {
        "precision": _precision(q.dtype) if exact else None,
        "preferred_element_type": jnp.promote_types(q.dtype, jnp.float32),
    }
    if G == H:
        logits = jnp.einsum("bnhk,bshk->bhns", q, k, **options)
    else:
        grouped = q.reshape(B, N, G, H // G, K)
        logits = jnp.einsum("bngrk,bsgk->bgrns", grouped, k, **options).reshape(B, H, N, S)
    logits *= K**-0.5 if scale is None else scale
    if soft_cap is not None:
        logits = soft_cap * jnp.tanh(logits / soft_cap)
    if bias is not None:
        logits = logits + bias
    valid = None if mask is None else mask[:, None, None, :]
    if causal:
        valid = _and(valid, jnp.tril(jnp.ones((N, S), bool), query_offset))
    if allowed is not None:
        valid = _and(valid, allowed[:, None])
    if valid is None:
        return jax.nn.softmax(logits, axis=-1)
    # A finite fill value keeps the gradient of an empty row finite; the second `where` makes it 0.
    weights = jax.nn.softmax(jnp.where(valid, logits, jnp.finfo(logits.dtype).min), axis=-1)
    return jnp.where(valid, weights, 0.0)


def reference_attention(
    q: Float[Array, "B N H K"],
    k: Float[Array, "B S G K"],
    v: Float[Array, "B S G K"],
    mask: Bool[Array, "B S"] | None = None,
    *,
    exact: bool = False,
    **options,
) -> Float[Array, "B N H K"]:
    """Compute multi-head attention, with the options of `attention_weights`, in `v`'s type."""
    B, N, H, K = q.shape
    S, G = k.shape[1:3]
    weights = attention_weights(q, k, mask, exact=exact, **options).astype(v.dtype)
    precision = _precision(q.dtype) if exact else None
    if G == H:
        out = jnp.einsum("bhns,bshk->bnhk", weights, v, precision=precision)
    else:
        grouped = weights.reshape(B, G, H // G, N, S)
        out = jnp.einsum("bgrns,bsgk->bngrk", grouped, v, precision=precision)
        out = out.reshape(B, N, H, K)
    return checkpoint_name(out, ATTENTION_OUTPUT)


def _and(a: Array | None, b: Array) -> Array:
    return b if a is None else a & b


def _precision(dtype: DTypeLike) -> jax.lax.Precision:
    """Return the precision that keeps TPUs from rounding float32 to bfloat16, and GPUs to TF32."""
    wide = jnp.promote_types(dtype, jnp.float32) == dtype
    return jax.lax.Precision.HIGHEST if wide else jax.lax.Precision.DEFAULT
