"""Noise schedules, weights of the losses, training times; diffusers is the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import (
    compute_density_for_timestep_sampling,
    compute_loss_weighting_for_sd3,
    compute_snr,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from lidit_jax.diffusion import schedules
from lidit_jax.diffusion.process import DDPM, RectifiedFlow
from lidit_jax.errors import LiditError
from tests.numerics import EPSILON, in_float64, rounding

pytestmark = pytest.mark.numeric

DIFFUSERS_SCHEDULES = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "cosine": "squaredcos_cap_v2",
}
few_examples = settings(max_examples=25, deadline=None, derandomize=True, database=None)
X0, NOISE = np.random.default_rng(0).normal(size=(2, 16, 4, 4, 3)).astype(np.float32)


# --- DDPM schedules ----------------------------------------------------------------------------


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
def test_schedules_equal_diffusers(schedule, zero_terminal_snr):
    """In float64: in its own float32 diffusers' small sigmas are 1 - 0.9999..., off by up to 0.2%.

    Ours come from a table in float64, so that each is rounded once.
    """
    with in_float64():
        reference = DDPMScheduler(
            beta_schedule=DIFFUSERS_SCHEDULES[schedule], rescale_betas_zero_snr=zero_terminal_snr
        )
    kept = reference.alphas_cumprod.numpy()
    assert kept.dtype == np.float64
    process = DDPM(prediction="v", schedule=schedule, zero_terminal_snr=zero_terminal_snr)
    scales = process.scales(jnp.arange(1000))
    for ours, exact in zip(scales, (np.sqrt(kept), np.sqrt(1 - kept)), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=EPSILON, atol=0)


@few_examples
@given(
    schedule=st.sampled_from(schedules.SCHEDULES),
    timesteps=st.integers(2, 2000),
    beta_start=st.floats(1e-5, 1e-3),
    growth=st.floats(1, 20),
    zero_terminal_snr=st.booleans(),
)
def test_signal_to_noise_falls_at_every_step(
    schedule, timesteps, beta_start, growth, zero_terminal_snr
):
    betas = schedules.betas(schedule, timesteps, beta_start, beta_start * growth)
    signal, sigma = schedules.scales(betas, zero_terminal_snr=zero_terminal_snr)
    assert np.all(np.diff(signal) < 0)
    assert np.all(np.diff(sigma) > 0)
    np.testing.assert_allclose(signal**2 + sigma**2, 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
def test_zero_terminal_snr_ends_in_noise_alone_and_keeps_the_start(schedule):
    plain = DDPM(prediction="v", schedule=schedule)
    rescaled = DDPM(prediction="v", schedule=schedule, zero_terminal_snr=True)
    ends = jnp.array([-1, 0, 999])
    np.testing.assert_allclose(rescaled.scales(ends)[0][:2], plain.scales(ends)[0][:2], rtol=1e-6)
    last = jnp.full(16, 999)
    np.testing.assert_array_equal(rescaled.add_noise(X0, NOISE, last), NOISE)
    target = rescaled.target(X0, NOISE, last)
    image, epsilon = (rescaled.convert(target, NOISE, last, s) for s in ("x0", "epsilon"))
    np.testing.assert_array_equal(image, X0)
    np.testing.assert_array_equal(epsilon, NOISE)


def test_zero_terminal_snr_leaves_a_noise_prediction_without_meaning():
    with pytest.raises(LiditError, match=r"does not fit zero_terminal_snr=True.*'v' or 'x0'"):
        DDPM(prediction="epsilon", zero_terminal_snr=True)


def test_scales_for_samplers_agree_with_those_of_training_and_interpolate_between():
    process = DDPM(schedule="scaled_linear")
    whole = np.array([999.0, 500.0, 0.0, -1.0])
    expected = process.scales(jnp.asarray(whole, jnp.int32))
    np.testing.assert_allclose(process.scales_of(whole), expected, rtol=1e-6)
    signal, sigma = process.scales_of(np.array([500.0, 500.25, 501.0]))
    ratio = sigma / signal
    assert ratio[1] == pytest.approx(0.75 * ratio[0] + 0.25 * ratio[2], rel=1e-12)


# --- loss weights ------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", DDPM.spaces)
def test_min_snr_weights_equal_those_of_diffusers_training_scripts(prediction):
    """The formulas of `examples/text_to_image/train_text_to_image.py` and of the paper for x0."""
    process = DDPM(prediction=prediction, weighting="min_snr", snr_gamma=5.0)
    t = jnp.arange(0, 1000, 66)[:16]
    with in_float64():  # in float32 diffusers' is off by 1.7e-4 where there is little noise
        snr = compute_snr(DDPMScheduler(), torch.from_numpy(np.array(t)))
    clipped = snr.clamp(max=5.0)
    factor = {"epsilon": clipped / snr, "v": clipped / (snr + 1), "x0": clipped}[prediction]
    plain = DDPM(prediction=prediction).loss(X0 * 0, X0, NOISE, t)
    np.testing.assert_allclose(
        process.loss(X0 * 0, X0, NOISE, t), plain * factor.numpy(), rtol=rounding(terms=48)
    )


def test_min_snr_counts_the_same_error_in_the_image_the_same_whatever_is_predicted():
    t = jnp.linspace(0.05, 1, 16)
    losses = []
    for prediction in RectifiedFlow.spaces:
        process = RectifiedFlow(prediction=prediction, weighting="min_snr", snr_gamma=3.0)
        x_t = process.add_noise(X0, NOISE, t)
        wrong = RectifiedFlow(prediction="x0").convert(X0 + 0.1, x_t, t, prediction)
        losses.append(process.loss(wrong, X0, NOISE, t))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("weighting", ["sigma_sqrt", "cosmap"])
def test_flow_weights_equal_those_of_diffusers(weighting):
    t = np.linspace(0.05, 1, 16, dtype=np.float32)
    factor = compute_loss_weighting_for_sd3(weighting, torch.from_numpy(t))
    weighted = RectifiedFlow(weighting=weighting).loss(X0 * 0, X0, NOISE, jnp.asarray(t))
    plain = RectifiedFlow().loss(X0 * 0, X0, NOISE, jnp.asarray(t))
    np.testing.assert_allclose(weighted, plain * factor.numpy(), rtol=1e-5)


@pytest.mark.parametrize("process", [RectifiedFlow(), DDPM(prediction="v")])
def test_weights_are_finite_at_both_ends(process):
    ends = jnp.asarray(process.sampling_times(4)[[0, -1]])
    for weighting in process.weightings:
        weighted = type(process)(prediction=process.prediction, weighting=weighting)
        loss = weighted.loss(X0[:2] * 0, X0[:2], NOISE[:2], ends)
        assert np.all(np.isfinite(loss)), weighting


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"weighting": "cosmap"},
            "config.diffusion.weighting='cosmap' does not fit process 'ddpm'",
        ),
        (
            {"weighting": "min_snr", "loss_space": "v"},
            "leave config.diffusion.loss at 'prediction'",
        ),
        ({"snr_gamma": 0.0}, "config.diffusion.snr_gamma=0.0: must be greater than 0"),
        ({"schedule": "sine"}, "config.diffusion.schedule='sine'.*'linear', 'scaled_linear'"),
    ],
)
def test_weights_and_schedules_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(LiditError, match=message):
        DDPM(**fields)


# --- flow times --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"time_sampling": "mode"}, {"weighting_scheme": "mode", "mode_scale": 1.29}),
        (
            {"time_sampling": "mode", "mode_scale": -0.5},
            {"weighting_scheme": "mode", "mode_scale": -0.5},
        ),
        (
            {"logit_mean": 0.5, "logit_std": 0.7},
            {"weighting_scheme": "logit_normal", "logit_mean": 0.5, "logit_std": 0.7},
        ),
    ],
)
def test_training_times_have_the_distribution_of_diffusers(ours, theirs):
    times = np.asarray(RectifiedFlow(**ours).sample_times(jax.random.key(0), (40_000,)))
    generator = torch.Generator().manual_seed(0)
    expected = compute_density_for_timestep_sampling(
        batch_size=40_000, generator=generator, **theirs
    )
    assert times.min() >= 0
    assert times.max() <= 1
    levels = np.linspace(0.05, 0.95, 10)
    np.testing.assert_allclose(
        np.quantile(times, levels), np.quantile(expected.numpy(), levels), rtol=0, atol=0.015
    )


def test_a_larger_image_gets_a_larger_shift():
    process = RectifiedFlow(shift=3.0)
    assert process.at_resolution(2.0) == RectifiedFlow(shift=6.0)
    t = np.float32(0.3)
    composed = RectifiedFlow(shift=2.0).shift_times(process.shift_times(t))
    assert process.at_resolution(2.0).shift_times(t) == pytest.approx(composed, rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode_scale": 2.0}, "config.diffusion.mode_scale=2.0: must be from -1 to 1.75"),
        ({"logit_std": 0.0}, "config.diffusion.logit_std=0.0: must be greater than 0"),
        ({"time_sampling": "sine"}, "choose one of 'uniform', 'logit_normal', 'mode'"),
    ],
)
def test_time_sampling_out_of_range_is_refused(fields, message):
    with pytest.raises(LiditError, match=message):
        RectifiedFlow(**fields)
