"""Classifier-free guidance: the order of the halves and the arithmetic."""

import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.diffusion.guidance import concatenate_conditions, guided

PROMPTS = {"text": np.array([[1.0], [2.0], [3.0]], np.float32), "size": np.full((3, 2), 8.0)}
EMPTY = {"text": np.array([[0.5]], np.float32), "size": np.full((1, 2), 8.0)}
X_T = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)
TIME = np.array([10.0, 20.0, 30.0], np.float32)


def network(x_t, time, conditions):
    """Predictions that tell which text, image and time each row was computed from."""
    return x_t * conditions["text"][:, :, None, None] + time[:, None, None, None]


def guide(scale):
    both = concatenate_conditions(PROMPTS, EMPTY)
    return guided(lambda x_t, time: network(x_t, time, both), scale)(X_T, TIME)


CONDITIONAL = network(X_T, TIME, PROMPTS)
UNCONDITIONAL = network(X_T, TIME, EMPTY)


def test_conditions_are_the_prompts_and_then_the_empty_prompt():
    both = concatenate_conditions(PROMPTS, EMPTY)
    np.testing.assert_array_equal(both["text"].ravel(), [1.0, 2.0, 3.0, 0.5, 0.5, 0.5])
    assert both["size"].shape == (6, 2)


@pytest.mark.parametrize("scale", [0.0, 2.5, 5.0])
def test_guidance_moves_from_the_empty_prompt_towards_the_prompt(scale):
    """Fails when the halves are swapped."""
    expected = UNCONDITIONAL + scale * (CONDITIONAL - UNCONDITIONAL)
    np.testing.assert_allclose(guide(scale), expected, rtol=1e-6, atol=1e-5)


def test_scale_one_is_exactly_the_conditional_prediction():
    np.testing.assert_array_equal(guide(1.0), CONDITIONAL)


def test_each_sample_may_have_its_own_scale():
    scales = jnp.array([0.0, 1.0, 4.0])
    expected = np.stack([guide(scale)[i] for i, scale in enumerate(scales)])
    np.testing.assert_array_equal(guide(scales), expected)


def test_a_bfloat16_network_is_extrapolated_in_float32():
    both = concatenate_conditions(PROMPTS, EMPTY)
    model_fn = guided(lambda x_t, time: network(x_t, time, both).astype(jnp.bfloat16), 5.0)
    assert model_fn(X_T, TIME).dtype == jnp.float32
