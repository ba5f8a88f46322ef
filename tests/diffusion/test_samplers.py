"""Sampling against diffusers, against a closed form, and as one compiled program."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lidit_jax.diffusion.guidance import concatenate_conditions, guided
from lidit_jax.diffusion.process import DDPM, RectifiedFlow
from lidit_jax.diffusion.samplers import ddim_step, euler_step, initial_noise, sample
from lidit_jax.errors import LiditError

DIFFUSERS_NAMES = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}
NOISE = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)


def toy_denoiser(x_t, time, library=jnp):
    """A smooth stand-in for the network: the same formula in JAX and in PyTorch."""
    time = time.reshape(-1, 1, 1, 1)
    return library.tanh(x_t) * library.cos(time / 300) + 0.1 * x_t


def toy_denoiser_torch(x_t, time):
    return toy_denoiser(x_t, time.to(torch.float32), torch)


# --- against diffusers, step by step -----------------------------------------------------------


@pytest.mark.parametrize("prediction", DDPM.spaces)
@pytest.mark.parametrize("steps", [5, 20, 50])
def test_ddim_equals_diffusers_at_every_step(prediction, steps):
    process = DDPM(prediction=prediction)
    reference = DDIMScheduler(
        prediction_type=DIFFUSERS_NAMES[prediction], timestep_spacing="trailing", clip_sample=False
    )
    reference.set_timesteps(steps)
    times = process.sampling_times(steps)
    ours, theirs = jnp.asarray(NOISE), torch.from_numpy(NOISE)
    for i, timestep in enumerate(reference.timesteps):
        theirs = reference.step(toy_denoiser_torch(theirs, timestep), timestep, theirs).prev_sample
        t, t_next = jnp.full(3, times[i]), jnp.full(3, times[i + 1])
        output = toy_denoiser(ours, process.model_time(t))
        ours = ddim_step(process, ours, output, t, t_next)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5, err_msg=f"step {i}")
    result = sample(toy_denoiser, process, NOISE, steps=steps, sampler="ddim")
    np.testing.assert_allclose(result.x0, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 7, 20])
def test_euler_equals_diffusers_at_every_step(shift, steps):
    process = RectifiedFlow(shift=shift)
    reference = FlowMatchEulerDiscreteScheduler(shift=shift)
    reference.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    times = process.sampling_times(steps)
    ours, theirs = jnp.asarray(NOISE), torch.from_numpy(NOISE)
    for i, timestep in enumerate(reference.timesteps):
        theirs = reference.step(toy_denoiser_torch(theirs, timestep), timestep, theirs).prev_sample
        t, t_next = jnp.full(3, times[i]), jnp.full(3, times[i + 1])
        output = toy_denoiser(ours, process.model_time(t))
        ours = euler_step(process, ours, output, t, t_next)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5, err_msg=f"step {i}")
    result = sample(toy_denoiser, process, NOISE, steps=steps, sampler="euler")
    np.testing.assert_allclose(result.x0, theirs, rtol=0, atol=1e-5)


# --- against a closed form ---------------------------------------------------------------------

MEAN, DEVIATION = 0.7, 0.3


def gaussian_denoiser(process):
    """The best possible network when every value of the data is drawn from N(MEAN, DEVIATION^2)."""

    def model_fn(x_t, time):
        t = time.astype(jnp.int32) if process.name == "ddpm" else time / 1000
        signal, sigma = (scale.reshape(-1, 1, 1, 1) for scale in process.scales(t))
        gain = signal * DEVIATION**2 / (signal**2 * DEVIATION**2 + sigma**2)
        x0 = MEAN + gain * (x_t - signal * MEAN)
        from_x0 = dataclasses.replace(process, prediction="x0")
        return from_x0.convert(x0, x_t, t, process.prediction)

    return model_fn


@pytest.mark.parametrize(
    ("process", "sampler"),
    [(DDPM(prediction=space), "ddim") for space in DDPM.spaces]
    + [(RectifiedFlow(prediction=space), "euler") for space in RectifiedFlow.spaces]
    + [(RectifiedFlow(shift=3.0), "euler")],
)
def test_sampling_reproduces_a_gaussian(process, sampler):
    noise = initial_noise(range(64), (8, 8, 1))
    samples = sample(gaussian_denoiser(process), process, noise, steps=200, sampler=sampler)
    # Between Gaussians the flow is a rescaling: each value is known, not only mean and variance.
    signal, sigma = process.scales(jnp.asarray(process.sampling_times(200)[:1]))
    spread = np.sqrt(signal**2 * DEVIATION**2 + sigma**2)
    expected = MEAN + DEVIATION * (noise - signal * MEAN) / spread
    np.testing.assert_allclose(samples.x0, expected, rtol=0, atol=0.03)
    assert np.mean(samples.x0) == pytest.approx(MEAN, abs=0.02)
    assert np.std(samples.x0) == pytest.approx(DEVIATION, rel=0.05)


# --- one compiled program ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("process", "sampler"), [(DDPM(timesteps=50), "ddim"), (RectifiedFlow(), "euler")]
)
def test_one_trace_serves_every_seed_scale_and_prompt(process, sampler):
    traces = []

    def network(x_t, time, prompt):
        traces.append(x_t.shape)
        return toy_denoiser(x_t, time) * prompt[:, None, None, None]

    @jax.jit
    def generate(seeds, scale, prompt):
        both = concatenate_conditions(prompt, jnp.zeros(1))
        model_fn = guided(lambda x_t, time: network(x_t, time, both), scale)
        noise = initial_noise(seeds, (4, 4, 2))
        return sample(model_fn, process, noise, steps=9, sampler=sampler).x0

    results = [
        generate(jnp.array([seed, seed + 1]), scale, jnp.array([0.1, prompt]))
        for seed, scale, prompt in [(0, 5.0, 0.2), (1, 5.0, 0.2), (0, 2.5, 0.2), (0, 5.0, 0.3)]
    ]
    assert traces == [(4, 4, 4, 2)]
    for other in results[1:]:
        assert not np.array_equal(results[0], other)


def test_the_first_step_that_is_not_finite_is_reported():
    process = RectifiedFlow()

    def breaks_at(step):
        broken_time = process.model_time(process.sampling_times(6))[step]
        return lambda x_t, time: jnp.where((time <= broken_time)[:, None, None, None], jnp.nan, x_t)

    for step in (0, 3, 5):
        result = sample(breaks_at(step), process, NOISE, steps=6, sampler="euler")
        assert result.nonfinite_step == step
    assert sample(toy_denoiser, process, NOISE, steps=6, sampler="euler").nonfinite_step == -1


def test_one_bad_image_in_the_batch_is_enough():
    def model_fn(x_t, time):
        return x_t.at[1, 0, 0, 0].set(jnp.inf)

    assert sample(model_fn, DDPM(), NOISE, steps=4, sampler="ddim").nonfinite_step == 0


@pytest.mark.parametrize(
    ("process", "sampler", "steps", "message"),
    [
        (DDPM(), "euler", 10, "'euler' does not fit process 'ddpm': choose one of 'ddim'"),
        (RectifiedFlow(), "ddim", 10, "'ddim' does not fit process 'flow': choose one of 'euler'"),
        (DDPM(), "heun", 10, "'heun'.*choose one of 'ddim'"),
        (DDPM(timesteps=50), "ddim", 51, "51 sampling steps.*choose 1 to 50"),
        (DDPM(), "ddim", 0, "0 sampling steps"),
        (RectifiedFlow(), "euler", 0, "0 sampling steps"),
    ],
)
def test_samplers_that_cannot_work_are_refused(process, sampler, steps, message):
    with pytest.raises(LiditError, match=message):
        sample(toy_denoiser, process, NOISE, steps=steps, sampler=sampler)


# --- noise from seeds --------------------------------------------------------------------------


def test_noise_of_a_seed_is_bit_equal_in_every_batch_and_on_a_mesh():
    seeds = np.arange(100, 116)
    whole = np.asarray(initial_noise(seeds, (5, 7, 3)))
    for start, stop in [(3, 4), (7, 16)]:
        part = initial_noise(seeds[start:stop], (5, 7, 3))
        np.testing.assert_array_equal(part, whole[start:stop])
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(jnp.asarray(seeds), NamedSharding(mesh, PartitionSpec("data")))
    on_mesh = jax.jit(initial_noise, static_argnums=1)(sharded, (5, 7, 3))
    np.testing.assert_array_equal(on_mesh, whole)


def test_noise_is_standard_normal_and_differs_between_seeds():
    noise = np.asarray(initial_noise([0, 1, 2**32 - 1], (64, 64, 4)))
    np.testing.assert_allclose(noise.mean(axis=(1, 2, 3)), 0, atol=0.03)
    np.testing.assert_allclose(noise.std(axis=(1, 2, 3)), 1, atol=0.03)
    assert not np.array_equal(noise[0], noise[1])


@pytest.mark.parametrize("seeds", [[-1], [2**32], np.array([2**40])])
def test_seeds_out_of_range_are_refused(seeds):
    with pytest.raises(LiditError, match="must be from 0 to 4294967295"):
        initial_noise(seeds, (2, 2))
