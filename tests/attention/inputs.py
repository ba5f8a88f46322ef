"""Inputs of attention, and its result together with its gradients."""

import jax
import jax.numpy as jnp
import numpy as np


def arrays(queries, keys, head_width, dtype="float32", batch=2, heads=2, key_heads=None):
    """q [B, N, H, K], k and v [B, S, G, K], and a direction to differentiate along."""
    rng = np.random.default_rng(0)
    key_heads = key_heads or heads
    sizes = ((queries, heads), (keys, key_heads), (keys, key_heads), (queries, heads))
    shapes = [(batch, length, count, head_width) for length, count in sizes]
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def value_and_gradients(function, q, k, v, direction):
    """The result, and the gradients of its product with `direction`, in float32 or float64."""

    def product(*qkv):
        out = function(*qkv)
        return jnp.sum(out.astype(jnp.float32) * direction.astype(jnp.float32)), out

    differentiate = jax.jit(jax.value_and_grad(product, argnums=(0, 1, 2), has_aux=True))
    (_, out), gradients = differentiate(q, k, v)
    return [np.asarray(a, np.dtype(jnp.float32)) for a in (out, *gradients)]


def padding(lengths, keys):
    return jnp.asarray(np.arange(keys) < np.array(lengths)[:, None])
