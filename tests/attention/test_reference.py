"""Plain attention against PyTorch's, with masks, causal, and with queries that see nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel

from lidit_jax.attention import attention, attention_weights
from tests.numerics import assert_close, rounding

pytestmark = pytest.mark.numeric

QUERIES, KEYS = 5, 7
PADDED = np.arange(KEYS) < np.array([[7], [3]])
TOLERANCE = rounding(terms=KEYS + 8, sums=2)
"""Of the rms of what PyTorch computes in float64: products of 8 channels, then sums over keys."""
GRADIENT = 4 * TOLERANCE
"""A chain of four more sums, through a square that doubles their errors."""


def arrays(seed=0, queries=QUERIES, keys=KEYS):
    """q [2, N, 3, 8], k and v [2, S, 3, 8]."""
    rng = np.random.default_rng(seed)
    shapes = [(2, n, 3, 8) for n in (queries, keys, keys)]
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def torch_attention(q, k, v, allowed=None):
    """`scaled_dot_product_attention` in float64; allowed broadcasts to [B, H, N, S]."""
    q, k, v = (torch.as_tensor(a).double().transpose(1, 2) for a in (q, k, v))
    allowed = None if allowed is None else torch.as_tensor(allowed)
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed).transpose(1, 2)


def allowed_keys(mask, causal):
    """The mask that the options of `attention` stand for, [B, 1, N, S]."""
    allowed = np.ones((2, 1, QUERIES, KEYS), bool) if mask is None else mask[:, None, None, :]
    return allowed & np.tri(QUERIES, KEYS, dtype=bool) if causal else allowed


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, PADDED], ids=["full", "padded"])
def test_equals_pytorch(mask, causal):
    q, k, v = arrays()
    out = attention(q, k, v, mask, causal=causal)
    expected = torch_attention(q, k, v, allowed_keys(mask, causal))
    assert_close(out, expected, TOLERANCE)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, PADDED], ids=["full", "padded"])
def test_gradients_equal_pytorchs(mask, causal):
    q, k, v = arrays()
    gradients = jax.grad(
        lambda *qkv: jnp.sum(attention(*qkv, mask, causal=causal) ** 2), argnums=(0, 1, 2)
    )(q, k, v)
    tensors = [torch.tensor(a, requires_grad=True) for a in (q, k, v)]
    torch_attention(*tensors, allowed_keys(mask, causal)).square().sum().backward()
    for gradient, tensor in zip(gradients, tensors, strict=True):
        assert_close(gradient, tensor.grad, GRADIENT)


def test_a_dropped_mask_would_be_noticed():
    q, k, v = arrays()
    out = attention(q, k, v, PADDED)
    without = np.asarray(torch_attention(q, k, v))
    assert_close(out[0], without[0], TOLERANCE)
    assert np.abs(out[1] - without[1]).max() > 0.1


def test_masked_keys_and_values_are_not_read():
    q, k, v = arrays()
    expected = attention(q, k, v, PADDED)
    hidden = ~PADDED[:, :, None, None]
    out = attention(q, np.where(hidden, 1e4, k), np.where(hidden, -1e4, v), PADDED)
    np.testing.assert_array_equal(out, expected)


def test_a_row_without_any_valid_key_is_exactly_zero_with_finite_gradients():
    """As PyTorch's `scaled_dot_product_attention` since 2.5; its `MultiheadAttention`, which takes
    a plain softmax over -inf, gives NaN."""
    q, k, v = arrays()
    mask = np.zeros((2, KEYS), bool)
    mask[1, :2] = True
    out = attention(q, k, v, mask)
    np.testing.assert_array_equal(out[0], 0.0)
    np.testing.assert_array_equal(attention_weights(q, k, mask)[0], 0.0)
    theirs = torch_attention(q, k, v, allowed_keys(mask, False))
    assert_close(out, theirs, TOLERANCE)

    gradient = jax.grad(lambda *qkv: jnp.sum(attention(*qkv, mask) ** 2), argnums=(0, 1, 2))
    for leaf in gradient(q, k, v):
        np.testing.assert_array_equal(leaf[0], 0.0)
        assert np.isfinite(leaf).all()

    tokens = torch.as_tensor(q).flatten(2)
    module = torch.nn.MultiheadAttention(tokens.shape[-1], 3, batch_first=True)
    hidden = torch.ones(2, QUERIES, dtype=torch.bool)
    assert module(tokens, tokens, tokens, key_padding_mask=hidden)[0].isnan().all()


def test_weights_are_a_distribution_over_the_valid_keys():
    q, k, _ = arrays()
    weights = np.asarray(attention_weights(q, k, PADDED))
    assert weights.shape == (2, 3, QUERIES, KEYS)
    assert weights.dtype == np.float32
    assert_close(weights.sum(axis=-1), np.ones((2, 3, QUERIES)), rounding(terms=KEYS))
    np.testing.assert_array_equal(weights[1, ..., 3:], 0.0)


def test_large_logits_do_not_overflow():
    q, k, v = arrays()
    out = attention(1e3 * q, 1e3 * k, v, PADDED)
    np.testing.assert_allclose(
        out, torch_attention(1e3 * q, 1e3 * k, v, allowed_keys(PADDED, False)), atol=1e-4
    )


def test_bfloat16_keeps_its_type_and_computes_the_softmax_in_float32():
    q, k, v = (jnp.asarray(a, jnp.bfloat16) for a in arrays())
    assert attention_weights(q, k, PADDED).dtype == jnp.float32
    out = attention(q, k, v, PADDED)
    assert out.dtype == jnp.bfloat16
    exact = attention(*(a.astype(jnp.float32) for a in (q, k, v)), PADDED)
    np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=0.02)
