"""What only a GPU can show: `JAX_PLATFORMS=cuda,cpu pytest -m gpu`, or `lidit bench all` there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.attention.gpu import cudnn_difference, gpu_attention
from lidit_jax.attention.reference import reference_attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU"),
]
TOLERANCE = 2**-5
"""Of the largest value: bfloat16 keeps 8 bits, and a gradient rounds some times."""


def test_cudnn_is_close_to_plain_products():
    assert cudnn_difference() < TOLERANCE


@pytest.mark.parametrize("head_width", [64, 72, 128])
@pytest.mark.parametrize(("queries", "keys"), [(64, 64), (63, 64), (64, 63), (63, 61)])
@pytest.mark.parametrize("causal", [False, True])
def test_masks_and_odd_lengths(queries, keys, head_width, causal):
    """The second of two prompts has no token: its rows are 0, and so are their gradients."""
    places = jax.random.split(jax.random.key(0), 3)
    q, k, v = (
        jax.random.normal(place, (2, n, 4, head_width), jnp.bfloat16)
        for place, n in zip(places, (queries, keys, keys), strict=True)
    )
    mask = jnp.arange(keys) < jnp.asarray([[keys - 2], [0]])

    def both(call, *inputs):
        def total(*inputs):
            out = call(*inputs, mask, causal=causal)
            return jnp.sum(out.astype(jnp.float32) ** 2), out

        gradients, out = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(*inputs)
        return [np.asarray(value, np.float64) for value in (out, *gradients)]

    ours = both(gpu_attention, q, k, v)
    exact = both(reference_attention, *(x.astype(jnp.float32) for x in (q, k, v)))
    for value, wanted in zip(ours, exact, strict=True):
        assert np.max(np.abs(value - wanted)) < TOLERANCE * np.max(np.abs(wanted))
        assert not value[1].any()
