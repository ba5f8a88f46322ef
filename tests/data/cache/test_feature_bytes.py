"""Bytes of text features: bfloat16 as it is, int8 within half a step of each token and layer."""

import ml_dtypes
import numpy as np
import pytest

from lidit_jax.data.cache.feature_bytes import packed, quantize, token_bytes, unpacked

SHAPES = (16,), (3, 6)
"""Of a token's features, in a stream of one layer and in one of three."""


@pytest.fixture
def features():
    """Features of tokens of very different sizes, and of layers too."""
    rng = np.random.default_rng(0)
    sizes = np.array([1e-3, 1.0, 0.0, 1e3])
    one, several = (rng.normal(size=(4, *shape)) for shape in SHAPES)
    one *= sizes[:, None]
    several *= sizes[:, None, None] * np.array([1.0, 40.0, 1e-2])[:, None]
    return [one.astype(np.float32), several.astype(np.float32)]


def test_bfloat16_comes_back(features):
    stored = [values.astype(ml_dtypes.bfloat16) for values in features]
    content = b"".join(packed([values]) for values in stored)
    assert len(content) == sum(4 + 4 * token_bytes(shape, "bfloat16") for shape in SHAPES)
    for ours, exact in zip(unpacked(memoryview(content), SHAPES, "bfloat16"), stored, strict=True):
        np.testing.assert_array_equal(ours, exact)


def test_int8_is_off_by_half_a_step_at_most(features):
    content, codes = b"", []
    for values in features:
        rounded = quantize(values[None])
        codes.append(np.asarray(rounded.codes[0]))
        content += packed([np.asarray(rounded.scales[0]), codes[-1]])
        error = (
            values.astype(np.float64)
            - codes[-1].astype(np.float64) * np.asarray(rounded.scales[0], np.float64)[..., None]
        )
        # Half a step; the quotient is rounded in float32, 127 * 2^-24 of a step at most.
        step = np.abs(values).max(axis=-1, keepdims=True) / 127
        assert (np.abs(error) <= step * (0.5 + 2**-14)).all()
        squares = np.sum(values.astype(np.float64) ** 2, axis=-1)
        np.testing.assert_allclose(rounded.squares[0], squares, rtol=1e-5)
        sums = np.sum(error**2, axis=-1)
        # Errors of codes close to their values cancel: relative to the largest possible sum.
        most = (step[..., 0] / 2) ** 2 * values.shape[-1]
        np.testing.assert_array_less(np.abs(rounded.errors[0] - sums), 1e-3 * most + 1e-30)
    assert len(content) == sum(4 + 4 * token_bytes(shape, "int8") for shape in SHAPES)
    for ours, values in zip(unpacked(memoryview(content), SHAPES, "int8"), features, strict=True):
        assert ours.dtype == ml_dtypes.bfloat16
        largest = np.abs(values).max(axis=-1, keepdims=True).astype(np.float64)
        # A value is rounded to bfloat16 by 2^-9 of it at most.
        bound = largest * (1 / 254 + 2.0**-9) * (1 + 2**-10)
        assert (np.abs(ours.astype(np.float64) - values) <= bound).all()


def test_no_token_is_a_caption_too():
    empty = np.zeros((0, 16), ml_dtypes.bfloat16)
    (ours,) = unpacked(memoryview(packed([empty])), [(16,)], "bfloat16")
    assert ours.shape == (0, 16)
