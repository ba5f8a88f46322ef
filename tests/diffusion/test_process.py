"""The schedules, prediction spaces and losses; diffusers is the reference."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from lidit_jax.config.schema import DiffusionConfig
from lidit_jax.diffusion.process import DDPM, RectifiedFlow, from_config
from lidit_jax.diffusion.weighting import LOSS_DIVISOR_FLOOR
from lidit_jax.errors import LiditError

pytestmark = pytest.mark.numeric

PROCESSES = [DDPM(prediction=space) for space in DDPM.spaces]
PROCESSES += [RectifiedFlow(prediction=space) for space in RectifiedFlow.spaces]
EVERY_PROCESS = pytest.mark.parametrize(
    "process", PROCESSES, ids=lambda process: f"{process.name}-{process.prediction}"
)
few_examples = settings(max_examples=25, deadline=None, derandomize=True, database=None)
unit_times = st.floats(0, 1, width=32)
shifts = st.floats(0.25, 8)


@pytest.fixture(scope="module")
def x0():
    return np.random.default_rng(0).normal(size=(16, 4, 4, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(1).normal(size=(16, 4, 4, 3)).astype(np.float32)


def interior_times(process, n=16):
    """`n` times without the clean end, the noisiest included."""
    return jnp.asarray(process.sampling_times(n)[:-1])


# --- against diffusers -------------------------------------------------------------------------


@pytest.mark.parametrize(("timesteps", "beta_end"), [(1000, 0.02), (100, 0.2)])
def test_ddpm_noising_and_v_equal_diffusers(x0, noise, timesteps, beta_end):
    process = DDPM(prediction="v", timesteps=timesteps, beta_end=beta_end)
    reference = DDIMScheduler(num_train_timesteps=timesteps, beta_end=beta_end)
    t = np.linspace(0, timesteps - 1, 16).astype(np.int64)
    inputs = torch.from_numpy(x0), torch.from_numpy(noise), torch.from_numpy(t)
    x_t, v = process.add_noise(x0, noise, t), process.target(x0, noise, t)
    np.testing.assert_allclose(x_t, reference.add_noise(*inputs), rtol=0, atol=1e-5)
    np.testing.assert_allclose(v, reference.get_velocity(*inputs), rtol=0, atol=1e-5)


def test_flow_noising_equals_diffusers(x0, noise):
    reference = FlowMatchEulerDiscreteScheduler(shift=3.0)
    timesteps = reference.timesteps[::62][:16]
    expected = reference.scale_noise(torch.from_numpy(x0), timesteps, torch.from_numpy(noise))
    x_t = RectifiedFlow(shift=3.0).add_noise(x0, noise, timesteps.numpy() / 1000)
    np.testing.assert_allclose(x_t, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 30, 50, 333, 1000])
def test_ddpm_sampling_times_are_diffusers_trailing_timesteps(steps):
    reference = DDIMScheduler(timestep_spacing="trailing")
    reference.set_timesteps(steps)
    times = DDPM().sampling_times(steps)
    np.testing.assert_array_equal(times[:-1], reference.timesteps)
    assert times[-1] == -1


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_sampling_times_are_those_of_the_diffusers_pipelines(shift):
    reference = FlowMatchEulerDiscreteScheduler(shift=shift)
    reference.set_timesteps(sigmas=np.linspace(1, 1 / 20, 20))
    times = RectifiedFlow(shift=shift).sampling_times(20)
    np.testing.assert_allclose(times, reference.sigmas, rtol=0, atol=1e-6)
    model_time = RectifiedFlow(shift=shift).model_time(jnp.asarray(times[:-1]))
    np.testing.assert_allclose(model_time, reference.timesteps, rtol=0, atol=1e-3)


# --- the forward process -----------------------------------------------------------------------


def test_flow_is_the_image_at_0_and_the_noise_at_1(x0, noise):
    process = RectifiedFlow()
    np.testing.assert_array_equal(process.add_noise(x0, noise, jnp.zeros(16)), x0)
    np.testing.assert_array_equal(process.add_noise(x0, noise, jnp.ones(16)), noise)


def test_ddpm_is_the_image_at_minus_1_and_almost_noise_at_the_last_time(x0, noise):
    process = DDPM()
    np.testing.assert_array_equal(process.add_noise(x0, noise, jnp.full(16, -1)), x0)
    signal, sigma = process.scales(jnp.array([0, 999]))
    assert sigma[0] == pytest.approx(0.01, rel=1e-4)  # sqrt(beta_start)
    assert signal[1] < 0.01
    assert sigma[1] > 0.9999


@pytest.mark.parametrize("process", [DDPM(), DDPM(timesteps=50, beta_end=0.3), RectifiedFlow()])
def test_signal_to_noise_falls_along_the_time_axis(process):
    signal, sigma = process.scales(jnp.asarray(process.sampling_times(50)[::-1]))
    assert np.all(np.diff(signal) < 0)
    assert np.all(np.diff(sigma) > 0)


@few_examples
@given(t=st.integers(0, 999))
def test_ddpm_keeps_the_variance(t):
    signal, sigma = DDPM().scales(jnp.array([t]))
    assert signal[0] ** 2 + sigma[0] ** 2 == pytest.approx(1, abs=1e-6)


@few_examples
@given(t=st.floats(0, 0.875, width=32))
def test_velocity_is_the_time_derivative_of_the_path(x0, noise, t):
    """Fails when the velocity, or the direction of time, is flipped."""
    process, step = RectifiedFlow(), 0.1
    here = process.add_noise(x0, noise, jnp.full(16, t))
    there = process.add_noise(x0, noise, jnp.full(16, t) + step)
    velocity = process.target(x0, noise, jnp.full(16, t))
    np.testing.assert_allclose((there - here) / step, velocity, rtol=0, atol=2e-5)


# --- prediction spaces -------------------------------------------------------------------------


@EVERY_PROCESS
def test_a_perfect_prediction_gives_back_the_image_and_the_noise(process, x0, noise):
    t = interior_times(process)
    x_t, target = process.add_noise(x0, noise, t), process.target(x0, noise, t)
    image, epsilon = (process.convert(target, x_t, t, space) for space in ("x0", "epsilon"))
    # float32: an epsilon-prediction divides by a signal of 0.0064 at the last DDPM time.
    np.testing.assert_allclose(image, x0, rtol=0, atol=2e-4)
    np.testing.assert_allclose(epsilon, noise, rtol=0, atol=2e-4)


@EVERY_PROCESS
@few_examples
@given(position=st.integers(0, 15), seed=st.integers(0, 2**16))
def test_any_prediction_survives_a_round_trip_through_each_space(process, position, seed):
    """Through space and back, for arbitrary (also wrong) predictions, away from the last times."""
    x_t, prediction = np.random.default_rng(seed).normal(size=(2, 1, 8)).astype(np.float32)
    t = interior_times(process, 20)[4:][position : position + 1]
    for space in process.spaces:
        there = process.convert(prediction, x_t, t, space)
        other = dataclasses.replace(process, prediction=space)
        back = other.convert(there, x_t, t, process.prediction)
        np.testing.assert_allclose(back, prediction, rtol=0, atol=5e-5)


# --- losses ------------------------------------------------------------------------------------


@EVERY_PROCESS
def test_loss_is_the_error_measured_in_the_chosen_space(process, x0, noise):
    t = jnp.asarray(process.validation_times(24)[2:18])  # no divisor is below the floor here
    x_t = process.add_noise(x0, noise, t)
    prediction = process.target(x0, noise, t) + 0.1 * noise[::-1]
    for space in process.spaces:
        measured = dataclasses.replace(process, loss_space=space)
        in_space = dataclasses.replace(process, prediction=space)
        error = process.convert(prediction, x_t, t, space) - in_space.target(x0, noise, t)
        expected = np.mean(np.square(error), axis=(1, 2, 3))
        loss = measured.loss(prediction, x0, noise, t)
        assert loss.shape == (16,)
        np.testing.assert_allclose(loss, expected, rtol=1e-3)


@EVERY_PROCESS
def test_loss_without_a_space_is_the_plain_mean_squared_error(process, x0, noise):
    t = interior_times(process)
    error = process.loss(x0 * 0, x0, noise, t)
    expected = np.mean(np.square(process.target(x0, noise, t)), axis=(1, 2, 3))
    np.testing.assert_allclose(error, expected, rtol=1e-6)


def test_velocity_loss_of_an_image_prediction_is_bounded_near_the_image(x0, noise):
    process = RectifiedFlow(prediction="x0", loss_space="velocity")
    loss = process.loss(x0 + 1, x0, noise, jnp.linspace(0, 1, 16))
    assert loss[0] == pytest.approx(1 / LOSS_DIVISOR_FLOOR**2, rel=1e-5)
    assert loss[-1] == pytest.approx(1, rel=1e-5)


# --- times -------------------------------------------------------------------------------------


@few_examples
@given(t=unit_times, first=shifts, second=shifts)
def test_shifts_compose(t, first, second):
    once = RectifiedFlow(shift=first * second).shift_times(t)
    twice = RectifiedFlow(shift=second).shift_times(RectifiedFlow(shift=first).shift_times(t))
    assert twice == pytest.approx(once, abs=1e-9)


@pytest.mark.parametrize("time_sampling", ["uniform", "logit_normal"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_training_times_of_flow_are_shifted(time_sampling, shift):
    process = RectifiedFlow(time_sampling=time_sampling, shift=shift)
    times = process.sample_times(jax.random.key(0), (20_000,))
    assert times.min() >= 0
    assert times.max() <= 1
    # Both distributions have the median 1/2, which the shift moves to s / (1 + s).
    assert np.median(times) == pytest.approx(shift / (1 + shift), abs=0.01)
    logits = np.log(times / (1 - times))
    expected_std = {"uniform": np.pi / np.sqrt(3), "logit_normal": 1.0}[time_sampling]
    assert np.std(logits) == pytest.approx(expected_std, rel=0.03)


def test_training_times_of_ddpm_are_uniform_integers():
    times = DDPM(timesteps=4).sample_times(jax.random.key(0), (8_000,))
    values, counts = np.unique(times, return_counts=True)
    np.testing.assert_array_equal(values, [0, 1, 2, 3])
    np.testing.assert_allclose(counts, 2_000, rtol=0.1)


def test_validation_times_of_ddpm_are_spread_evenly():
    np.testing.assert_array_equal(DDPM().validation_times(4), [125, 375, 625, 875])


@pytest.mark.parametrize(
    "process",
    [
        RectifiedFlow(time_sampling="uniform"),
        RectifiedFlow(shift=5.0),
        RectifiedFlow(logit_mean=-0.5, logit_std=0.7, shift=3.0),
        RectifiedFlow(time_sampling="mode", mode_scale=1.29, shift=2.0),
        RectifiedFlow(time_sampling="mode", mode_scale=-0.8),
    ],
)
def test_validation_times_of_flow_are_quantiles_of_those_of_training(process):
    """So validation and training losses compare: they used to stand at 5 and 0.5."""
    times, n = np.asarray(process.sample_times(jax.random.key(0), (100_000,))), 8
    fixed = process.validation_times(n)
    assert np.all(np.diff(fixed) > 0)
    below = np.mean(times[:, None] < fixed, axis=0)
    # A share of 100,000 draws has a deviation of at most 0.0016: four of them.
    np.testing.assert_allclose(below, (np.arange(n) + 0.5) / n, rtol=0, atol=0.0064)


def test_time_embedders_receive_a_thousandfold_flow_time_and_the_ddpm_integer():
    assert RectifiedFlow().model_time(jnp.array([0.25])) == 250
    ddpm_time = DDPM().model_time(jnp.array([250]))
    assert ddpm_time == 250
    assert ddpm_time.dtype == jnp.float32


# --- configuration -----------------------------------------------------------------------------


def test_from_config_carries_every_field():
    config = DiffusionConfig(prediction="v", loss="x0", timesteps=10, beta_start=0.1, beta_end=0.2)
    assert from_config(config) == DDPM(
        prediction="v", loss_space="x0", timesteps=10, beta_start=0.1, beta_end=0.2
    )
    config = DiffusionConfig(
        process="flow", prediction="x0", loss="velocity", time_sampling="uniform", shift=3.0
    )
    assert from_config(config) == RectifiedFlow(
        prediction="x0", loss_space="velocity", time_sampling="uniform", shift=3.0
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"process": "flow"}, r"config.diffusion.prediction='epsilon'.*'velocity', 'x0'"),
        ({"prediction": "velocity"}, r"config.diffusion.prediction.*'epsilon', 'v', 'x0'"),
        ({"loss": "velocity"}, r"config.diffusion.loss='velocity'.*'epsilon', 'v', 'x0'"),
        ({"shift": 3.0}, r"config.diffusion.shift=3.0.*'flow'"),
        ({"beta_start": 0.0}, r"config.diffusion.beta_start"),
        ({"process": "flow", "prediction": "x0", "shift": 0.0}, r"config.diffusion.shift"),
        (
            {"process": "flow", "prediction": "x0", "time_sampling": "normal"},
            r"config.diffusion.time_sampling='normal'.*'uniform', 'logit_normal'",
        ),
    ],
)
def test_wrong_configurations_name_the_field_and_the_choices(fields, message):
    with pytest.raises(LiditError, match=message):
        from_config(DiffusionConfig(**fields))


def test_a_process_is_a_static_argument_of_jit(x0, noise):
    add_noise = jax.jit(lambda process, t: process.add_noise(x0, noise, t), static_argnums=0)
    t = jnp.arange(16)
    np.testing.assert_allclose(
        add_noise(DDPM(), t), DDPM().add_noise(x0, noise, t), rtol=0, atol=1e-6
    )
