"""Guidance: the order of the halves, the arithmetic of each method, and diffusers as reference."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.guiders import AdaptiveProjectedGuidance, ClassifierFreeZeroStarGuidance
from diffusers.guiders.guider_utils import rescale_noise_cfg

from lidit_jax.diffusion.guidance import (
    Guidance,
    Pair,
    StepContext,
    autoguidance,
    concatenate_conditions,
    in_one_batch,
    rescale_guidance,
)
from lidit_jax.diffusion.parameterization import convert
from lidit_jax.diffusion.process import DDPM, RectifiedFlow
from lidit_jax.diffusion.samplers import Sampler, sample
from tests.diffusion.toy import NOISE, toy_denoiser

pytestmark = pytest.mark.numeric

PROMPTS = {"text": np.array([[1.0], [2.0], [3.0]], np.float32), "size": np.full((3, 2), 8.0)}
EMPTY = {"text": np.array([[0.5]], np.float32), "size": np.full((1, 2), 8.0)}
RNG = np.random.default_rng(0)
X_T = RNG.normal(size=(3, 4, 4, 2)).astype(np.float32)
TIME = np.array([10.0, 20.0, 30.0], np.float32)


def network(x_t, time, conditions):
    """Predictions that tell which text, image and time each row was computed from."""
    return x_t * conditions["text"][:, :, None, None] + time[:, None, None, None]


CONDITIONAL = network(X_T, TIME, PROMPTS)
UNCONDITIONAL = network(X_T, TIME, EMPTY)
PAIR = Pair(jnp.asarray(CONDITIONAL), jnp.asarray(UNCONDITIONAL))


def context(space="velocity", normalized_time=0.5, step=5):
    scales = (1 - normalized_time, normalized_time)
    return StepContext(
        space, jnp.asarray(X_T), *map(jnp.float32, (*scales, normalized_time)), jnp.int32(step)
    )


def guide(pair=PAIR, at=None, **settings):
    guidance = Guidance(**settings)
    return guidance.combine(pair, at or context(), guidance.start(jnp.asarray(X_T)))[0]


# --- where the two predictions come from -------------------------------------------------------


def test_conditions_are_the_prompts_and_then_the_empty_prompt():
    both = concatenate_conditions(PROMPTS, EMPTY)
    np.testing.assert_array_equal(both["text"].ravel(), [1.0, 2.0, 3.0, 0.5, 0.5, 0.5])
    assert both["size"].shape == (6, 2)


def test_one_batch_gives_both_predictions_in_order():
    both = concatenate_conditions(PROMPTS, EMPTY)
    pair = in_one_batch(lambda x_t, time: network(x_t, time, both))(X_T, TIME)
    np.testing.assert_array_equal(pair.conditional, CONDITIONAL)
    np.testing.assert_array_equal(pair.unconditional, UNCONDITIONAL)


def test_negative_prompts_may_differ_from_image_to_image():
    negative = {"text": np.array([[-1.0], [-2.0], [0.5]]), "size": np.full((3, 2), 8.0)}
    both = concatenate_conditions(PROMPTS, negative)
    pair = in_one_batch(lambda x_t, time: network(x_t, time, both))(X_T, TIME)
    np.testing.assert_array_equal(pair.unconditional[2], UNCONDITIONAL[2])
    np.testing.assert_allclose(pair.unconditional[0], -X_T[0] + 10, rtol=1e-6)


def test_blended_prompts_are_exact_at_both_ends_and_between_them_otherwise():
    second = {"text": PROMPTS["text"][::-1], "size": PROMPTS["size"]}
    three = concatenate_conditions(PROMPTS, second, EMPTY)
    weight = jnp.array([0.0, 0.5, 1.0])
    pair = in_one_batch(lambda x_t, time: network(x_t, time, three), weight)(X_T, TIME)
    other = network(X_T, TIME, second)
    np.testing.assert_array_equal(pair.conditional[0], CONDITIONAL[0])
    np.testing.assert_array_equal(pair.conditional[2], other[2])
    np.testing.assert_allclose(pair.conditional[1], (CONDITIONAL[1] + other[1]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(pair.unconditional, UNCONDITIONAL)


def test_autoguidance_compares_two_networks_on_the_same_prompts():
    def strong(x_t, time):
        return network(x_t, time, PROMPTS)

    def weak(x_t, time):
        return 0.8 * strong(x_t, time)

    pair = autoguidance(strong, weak)(X_T, TIME)
    np.testing.assert_allclose(guide(pair, scale=2.0), 1.2 * CONDITIONAL, rtol=1e-5)


def test_a_bfloat16_network_is_extrapolated_in_float32():
    both = concatenate_conditions(PROMPTS, EMPTY)
    pair_fn = in_one_batch(lambda x_t, time: network(x_t, time, both).astype(jnp.bfloat16))
    result = sample(
        pair_fn,
        RectifiedFlow(),
        X_T,
        Sampler(name="euler", steps=2),
        guidance=Guidance(scale=5.0),
    )
    assert result.x0.dtype == jnp.float32


# --- plain guidance ----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 2.5, 5.0])
def test_guidance_moves_from_the_empty_prompt_towards_the_prompt(scale):
    """Fails when the halves are swapped."""
    expected = UNCONDITIONAL + scale * (CONDITIONAL - UNCONDITIONAL)
    np.testing.assert_allclose(guide(scale=scale), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("method", ["cfg", "apg", "cfg_zero"])
def test_scale_one_is_exactly_the_conditional_prediction(method):
    at = context("x0" if method == "apg" else "velocity")
    np.testing.assert_array_equal(guide(at=at, scale=1.0, method=method), CONDITIONAL)


@pytest.mark.parametrize("method", ["cfg", "apg", "cfg_zero"])
def test_each_sample_may_have_its_own_scale(method):
    scales = [0.0, 1.0, 4.0]
    expected = [guide(scale=scale, method=method)[i] for i, scale in enumerate(scales)]
    np.testing.assert_array_equal(guide(scale=jnp.array(scales), method=method), expected)


@pytest.mark.parametrize(
    ("normalized_time", "inside"), [(0.1, False), (0.2, True), (0.6, True), (0.7, False)]
)
def test_outside_of_its_interval_guidance_does_nothing(normalized_time, inside):
    guided = guide(at=context(normalized_time=normalized_time), scale=4.0, low=0.15, high=0.65)
    changed = not np.array_equal(guided, CONDITIONAL)
    assert changed == inside


def test_the_interval_is_of_noise_levels_in_the_whole_loop():
    """Guided only near the image, a run starts like one without guidance, and ends differently."""
    process, sampler = DDPM(prediction="v"), Sampler(name="ddim", steps=10)
    pair_fn = lambda x_t, time: Pair(toy_denoiser(x_t, time), 0.5 * x_t)  # noqa: E731
    runs = [
        sample(pair_fn, process, NOISE, sampler, guidance=guidance, trace=True).trajectory
        for guidance in (Guidance(scale=1.0), Guidance(scale=3.0, high=0.5))
    ]
    same = [bool(np.array_equal(a, b)) for a, b in zip(*runs, strict=True)]
    assert same == [True] * 5 + [False] * 5


def test_rescaling_equals_diffusers():
    guided = guide(scale=5.0)
    expected = rescale_noise_cfg(
        torch.from_numpy(np.array(guided)), torch.from_numpy(CONDITIONAL), 0.7
    )
    np.testing.assert_allclose(
        guide(scale=5.0, rescale=0.7), expected.numpy(), rtol=1e-5, atol=1e-5
    )
    full = rescale_guidance(guided, jnp.asarray(CONDITIONAL), 1.0)
    np.testing.assert_allclose(full.std((1, 2, 3)), CONDITIONAL.std((1, 2, 3)), rtol=1e-5)
    assert np.all(np.isfinite(rescale_guidance(guided * 0, jnp.asarray(CONDITIONAL), 0.7)))


# --- CFG-Zero* and APG -------------------------------------------------------------------------


def reference_pair(step):
    """A pair that differs from step to step."""
    rng = np.random.default_rng(step)
    return [rng.normal(size=X_T.shape).astype(np.float32) for _ in range(2)]


def test_cfg_zero_equals_diffusers():
    reference = ClassifierFreeZeroStarGuidance(guidance_scale=4.0, zero_init_steps=2)
    for step in range(4):
        conditional, other = reference_pair(step)
        reference._step = step
        expected = reference.forward(torch.from_numpy(conditional), torch.from_numpy(other)).pred
        ours = guide(
            Pair(jnp.asarray(conditional), jnp.asarray(other)),
            context(step=step),
            scale=4.0,
            method="cfg_zero",
            zero_steps=2,
        )
        np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("parallel", "norm", "momentum"), [(0.0, 0.0, 0.0), (0.3, 2.5, -0.5), (1.0, 0.0, -0.75)]
)
def test_apg_equals_diffusers(parallel, norm, momentum):
    """Their "original formulation" adds `guidance_scale` times the change: our scale - 1."""
    reference = AdaptiveProjectedGuidance(
        guidance_scale=3.0,
        adaptive_projected_guidance_momentum=momentum,
        adaptive_projected_guidance_rescale=norm,
        eta=parallel,
        use_original_formulation=True,
    )
    settings = {"apg_parallel": parallel, "apg_norm": norm, "apg_momentum": momentum}
    guidance = Guidance(scale=4.0, method="apg", **settings)
    state = guidance.start(jnp.asarray(X_T))
    reference._step = 0
    reference.prepare_inputs({})  # starts its momentum
    for step in range(3):
        conditional, other = reference_pair(step)
        expected = reference.forward(torch.from_numpy(conditional), torch.from_numpy(other)).pred
        pair = Pair(jnp.asarray(conditional), jnp.asarray(other))
        ours, state = guidance.combine(pair, context("x0", step=step), state)
        np.testing.assert_allclose(ours, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["cfg", "cfg_zero", "apg"])
def test_methods_mean_the_same_whatever_the_network_predicts(method):
    at = {space: context(space, normalized_time=0.4) for space in RectifiedFlow.spaces}
    scales = (at["x0"].signal, at["x0"].sigma)
    as_x0 = Pair(*(convert("velocity", "x0", p, at["x0"].x_t, *scales) for p in PAIR))
    from_x0 = guide(as_x0, at["x0"], scale=3.0, method=method)
    from_velocity = guide(PAIR, at["velocity"], scale=3.0, method=method)
    expected = convert("velocity", "x0", from_velocity, at["x0"].x_t, *scales)
    np.testing.assert_allclose(from_x0, expected, rtol=1e-4, atol=1e-4)


def test_apg_at_full_parallel_share_without_momentum_is_plain_guidance():
    plain = guide(at=context("x0"), scale=3.0)
    projected = guide(at=context("x0"), scale=3.0, method="apg", apg_parallel=1.0, apg_momentum=0.0)
    np.testing.assert_allclose(projected, plain, rtol=1e-5, atol=1e-4)
