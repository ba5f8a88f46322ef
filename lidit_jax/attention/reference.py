"""Plain attention: the definition that every faster kernel is compared with."""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from lidit_jax.attention.names import ATTENTION_OUTPUT


def attention_weights(
    q: Float[Array, "B N H K"],
    k: Float[Array, "B S H K"],
    mask: Bool[Array, "B S"] | None = None,
    *,
    causal: bool = False,
) -> Float[Array, "B H N S"]:
    """Softmax of the scaled products, in float32.

    Args:
      q: queries.
      k: keys.
      mask: keys that may be attended to; None for all.
      causal: whether query i sees only keys 0..i.

    Returns:
      Weights that sum to 1 over S; a row without any valid key is exactly 0, never NaN.
    """
    logits = jnp.einsum("bnhk,bshk->bhns", q, k, preferred_element_type=jnp.float32)
    logits *= q.shape[-1] ** -0.5
    valid = None if mask is None else mask[:, None, None, :]
    if causal:
        triangle = jnp.tril(jnp.ones((q.shape[1], k.shape[1]), bool))
        valid = triangle if valid is None else valid & triangle
    if valid is None:
        return jax.nn.softmax(logits, axis=-1)
    # A finite fill value keeps the gradient of an empty row finite; the second `where` makes it 0.
    weights = jax.nn.softmax(jnp.where(valid, logits, jnp.finfo(jnp.float32).min), axis=-1)
    return jnp.where(valid, weights, 0.0)


def reference_attention(
    q: Float[Array, "B N H K"],
    k: Float[Array, "B S H K"],
    v: Float[Array, "B S H K"],
    mask: Bool[Array, "B S"] | None = None,
    *,
    causal: bool = False,
) -> Float[Array, "B N H K"]:
    """Multi-head attention; arguments as in `attention_weights`, result in the type of `v`."""
    weights = attention_weights(q, k, mask, causal=causal)
    out = jnp.einsum("bhns,bshk->bnhk", weights.astype(v.dtype), v)
    return checkpoint_name(out, ATTENTION_OUTPUT)
