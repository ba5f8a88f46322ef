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

from .inputs import arrays, padding, value_and_gradients

pytestmark = pytest.mark.numeric

# Largest error where values and gradients are of size 1; bfloat16 keeps 8 bits of each number.
TOLERANCE = {"float32": 5e-6, "bfloat16": 0.04}


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
    exact = [a.astype(jnp.float32) for a in inputs]
    plain = functools.partial(reference_attention, mask=mask, causal=causal)
    for array, expected in zip(found, value_and_gradients(plain, *exact), strict=True):
        np.testing.assert_allclose(array, expected, atol=TOLERANCE[dtype])


def test_a_language_model_reads_shared_keys_from_its_place_behind_a_prefix():
    """Four query heads over two key heads, 90 tokens behind 50 that are cached, their own scale."""
    inputs = arrays(90, 140, 32, heads=4, key_heads=2)
    options = {"causal": True, "first": 50, "scale": 0.3}
    mask = padding((140, 61), 140)
    found = value_and_gradients(interpreted(mask, **options), *inputs)
    plain = functools.partial(reference_attention, mask=mask, **options)
    for array, expected in zip(found, value_and_gradients(plain, *inputs), strict=True):
        np.testing.assert_allclose(array, expected, atol=TOLERANCE["float32"])


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
    expected = value_and_gradients(functools.partial(reference_attention, mask=mask), *inputs)
    mesh = jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))
    with jax.set_mesh(mesh):
        split = functools.partial(attention, mask=mask, kernel="splash", split_queries=True)
        found = value_and_gradients(split, *inputs)
    for array, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, reference, atol=TOLERANCE["float32"])
