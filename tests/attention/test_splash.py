"""The splash kernel, interpreted on the CPU, against plain attention: forward and backward."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from lidit_jax.attention import attention, reference_attention
from lidit_jax.attention.splash import splash_attention
from lidit_jax.parallel.mesh import AXES

from ..numerics import in_float64, rounding, to_float64
from .inputs import arrays, padding, value_and_gradients

pytestmark = pytest.mark.numeric


def assert_equal(found, inputs, tolerance, **options):
    """Values and gradients are those of plain attention in float64.

    The tolerance is of the rms of each array and of each number: with few keys some are many times
    the rms. bfloat16's results are rounded themselves, by half of a step of 8 bits.
    """
    plain = functools.partial(reference_attention, **options)
    with in_float64():
        exact = value_and_gradients(plain, *to_float64([a.astype(np.float32) for a in inputs]))
    step = tolerance if inputs[0].dtype == jnp.float32 else 2**-8
    for array, expected in zip(found, exact, strict=True):
        atol = tolerance * np.sqrt(np.mean(expected**2))
        np.testing.assert_allclose(array, expected, rtol=step, atol=atol)


def interpreted(mask=None, **options):
    return functools.partial(splash_attention, mask=mask, interpret=True, **options)


CASES = {
    "self-attention, 36 tokens, head 48": (36, 36, 48, None, False, "float32"),
    "self-attention, whole tiles, head 64": (256, 256, 64, None, False, "float32"),
    "text, padded, head 72": (36, 150, 72, (150, 7), False, "float32"),
    "causal, padded": (140, 140, 16, (140, 31), True, "float32"),
    "bfloat16, padded, head 72": (130, 36, 72, (36, 5), False, "bfloat16"),
    "bfloat16, no text in one row": (36, 36, 128, (36, 0), False, "bfloat16"),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_plain_attention_forward_and_backward(case):
    queries, keys, head_width, lengths, causal, dtype = CASES[case]
    inputs = arrays(queries, keys, head_width, dtype)
    mask = None if lengths is None else padding(lengths, keys)
    found = value_and_gradients(interpreted(mask, causal=causal), *inputs)
    # bfloat16 rounds the weights and what flows back through them. The worst of 37,440 numbers was
    # off by 0.026 of the rms.
    tolerance = rounding(terms=keys + head_width, sums=6) if dtype == "float32" else 2**-4
    assert_equal(found, inputs, tolerance, mask=mask, causal=causal)


def test_a_language_model_reads_shared_keys_from_its_place_behind_a_prefix():
    """Four query heads over two key heads, 90 tokens behind 50 that are cached, their own scale."""
    inputs = arrays(90, 140, 32, heads=4, key_heads=2)
    options = {"causal": True, "query_offset": 50, "scale": 0.3}
    mask = padding((140, 61), 140)
    found = value_and_gradients(interpreted(mask, **options), *inputs)
    assert_equal(found, inputs, rounding(terms=140 + 32, sums=6), mask=mask, **options)


@pytest.mark.parametrize("causal", [False, True])
def test_rows_without_a_key_are_exactly_zero_with_gradients_of_zero(causal):
    """Padding on the left leaves the first causal queries without any key."""
    inputs = arrays(40, 40, 16)
    mask = jnp.asarray(np.arange(40) >= np.array([[40], [3]]))
    out, *gradients = value_and_gradients(interpreted(mask, causal=causal), *inputs)
    np.testing.assert_array_equal(out[0], 0.0)
    np.testing.assert_array_equal(out[1, :3] == 0, causal)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient[0], 0.0)
        assert np.isfinite(gradient).all()


def test_padding_is_not_read():
    q, k, v, _ = arrays(36, 36, 16)
    mask = padding((36, 9), 36)
    expected = interpreted(mask)(q, k, v)
    hidden = ~mask[:, :, None, None]
    out = interpreted(mask)(q, jnp.where(hidden, 1e4, k), jnp.where(hidden, -1e4, v))
    np.testing.assert_array_equal(out, expected)


MESHES = {
    "batch, heads": ((1, 1, 4, 1, 2), 4, 2),
    "queries over context": ((1, 2, 1, 2, 2), 2, 2),
    "nothing divides": ((1, 4, 1, 1, 2), 3, 3),
}


@pytest.mark.parametrize("name", MESHES)
def test_a_mesh_changes_nothing(name):
    sizes, batch, heads = MESHES[name]
    inputs = arrays(72, 40, 16, batch=batch, heads=heads)
    mask = padding([40, 13, 0, 2][:batch], 40)
    mesh = jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))
    with jax.set_mesh(mesh):
        split = functools.partial(attention, mask=mask, kernel="splash", split_queries=True)
        found = value_and_gradients(split, *inputs)
    assert_equal(found, inputs, rounding(terms=72 + 16, sums=6), mask=mask)
