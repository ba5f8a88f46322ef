"""Sampling against a closed form, as one compiled program, and from seeds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lidit_jax.diffusion.guidance import (
    Guidance,
    autoguidance,
    concatenate_conditions,
    in_one_batch,
)
from lidit_jax.diffusion.noise import checked_seeds, initial_noise, interpolate_noise, step_noise
from lidit_jax.diffusion.process import DDPM, RectifiedFlow
from lidit_jax.diffusion.samplers import (
    KnownRegion,
    Sampler,
    compatible_samplers,
    sample,
    solver_tables,
)
from lidit_jax.diffusion.schedules import SCHEDULES
from lidit_jax.diffusion.spacing import compatible_spacings
from lidit_jax.errors import LiditError
from tests.diffusion import gaussian
from tests.diffusion.toy import NOISE, toy_denoiser

STOCHASTIC = ("ddpm", "euler_ancestral", "dpm++2m_sde")


def noise_of(seeds, shape):
    return step_noise(checked_seeds(seeds), shape)


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
    setting = Sampler(name=sampler, steps=200)
    samples = sample(gaussian_denoiser(process), process, noise, setting)
    # Between Gaussians the flow is a rescaling: each value is known, not only mean and variance.
    signal, sigma = process.scales(jnp.asarray(process.sampling_times(200)[:1]))
    spread = np.sqrt(signal**2 * DEVIATION**2 + sigma**2)
    expected = MEAN + DEVIATION * (noise - signal * MEAN) / spread
    np.testing.assert_allclose(samples.x0, expected, rtol=0, atol=0.03)
    assert np.mean(samples.x0) == pytest.approx(MEAN, abs=0.02)
    assert np.std(samples.x0) == pytest.approx(DEVIATION, rel=0.05)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_samplers_draw_from_the_gaussian(name):
    process, seeds = DDPM(prediction="v"), range(64)
    samples = sample(
        gaussian_denoiser(process),
        process,
        initial_noise(seeds, (8, 8, 1)),
        Sampler(name=name, steps=400),
        step_noise=noise_of(seeds, (8, 8, 1)),
    )
    # 4,096 draws: the mean is known to 0.005, the deviation to 0.004.
    assert np.mean(samples.x0) == pytest.approx(MEAN, abs=0.02)
    assert np.std(samples.x0) == pytest.approx(DEVIATION, rel=0.06)


ORDERS = {
    "ddpm": 0.9,
    "ddim": 0.95,
    "euler": 0.95,
    "euler_ancestral": 0.9,
    "heun": 1.9,
    "dpm++2m": 1.75,
    "dpm++2m_sde": 1.9,
    "unipc": 2.7,
}


def test_every_sampler_reaches_its_order_of_convergence():
    counts = [64, 128, 256, 512]
    for (process, name), errors in gaussian.errors(counts).items():
        order = gaussian.order(counts, errors)
        assert ORDERS[name] < order < ORDERS[name] + 0.6, (process, name, order)


def every_distribution():
    processes = [
        (f"{schedule}-{'zero' if zero else 'some'}-snr", process)
        for schedule in SCHEDULES
        for zero in (False, True)
        for process in [DDPM(prediction="v", schedule=schedule, zero_terminal_snr=zero)]
    ]
    processes += [(f"flow-shift-{shift}", RectifiedFlow(shift=shift)) for shift in (1.0, 5.0)]
    for label, process in processes:
        for spacing in compatible_spacings(process):
            yield pytest.param(process, spacing, id=f"{label}-{spacing}")


@pytest.mark.parametrize("steps", [20, 50, 100])
@pytest.mark.parametrize(("process", "spacing"), every_distribution())
def test_no_sampler_misses_a_gaussian_by_more_than_the_bound_of_eulers_method(
    process, spacing, steps
):
    """Mean and deviation follow from the tables, without draws: the bound is of discretization."""
    for name in compatible_samplers(process):
        sampler = Sampler(name=name, steps=steps, spacing=spacing)
        mean, deviation = gaussian.moments(process, sampler, MEAN)
        bound = gaussian.euler_bound(process, sampler)
        assert abs(np.log(deviation / gaussian.DEVIATION)) < bound, name
        assert abs(mean - MEAN) / gaussian.DEVIATION < bound, name


@pytest.mark.parametrize("spacing", ["trailing", "linspace"])
@pytest.mark.parametrize("steps", [20, 30])
def test_heun_draws_from_the_gaussian_under_the_cosine_schedule(steps, spacing):
    """It used to be several deviations off: its first step starts at pure noise."""
    process, noise = DDPM(prediction="v", schedule="cosine"), initial_noise(range(64), (8, 8, 1))
    samplers = [Sampler(name=name, steps=steps, spacing=spacing) for name in ("heun", "euler")]
    result = sample(gaussian_denoiser(process), process, noise, samplers[0])
    # 4,096 draws: the mean is known to 0.005 and the deviation to 0.0033, here at four times that;
    # and the second order may not be further off than the first.
    left = abs(gaussian.moments(process, samplers[1])[1] - gaussian.DEVIATION)
    assert np.mean(result.x0) == pytest.approx(MEAN, abs=0.02 + left)
    assert np.std(result.x0) == pytest.approx(DEVIATION, abs=0.0132 + left)


# --- one compiled program ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("process", "name"),
    [(DDPM(timesteps=50), "ddpm"), (RectifiedFlow(), "unipc"), (RectifiedFlow(), "heun")],
)
def test_one_trace_serves_every_seed_scale_and_prompt(process, name):
    traces = []

    def network(x_t, time, prompt):
        traces.append(x_t.shape)
        return toy_denoiser(x_t, time) * prompt[:, None, None, None]

    @jax.jit
    def generate(seeds, guidance, prompt):
        both = concatenate_conditions(prompt, jnp.zeros(1))
        return sample(
            in_one_batch(lambda x_t, time: network(x_t, time, both)),
            process,
            initial_noise(seeds, (4, 4, 2)),
            Sampler(name=name, steps=9),
            guidance=guidance,
            step_noise=step_noise(seeds, (4, 4, 2)),
        ).x0

    results = [
        generate(jnp.array([seed, seed + 1], jnp.uint32), guidance, jnp.array([0.1, prompt]))
        for seed, guidance, prompt in [
            (0, Guidance(scale=jnp.full(2, 5.0)), 0.2),
            (1, Guidance(scale=jnp.full(2, 5.0)), 0.2),
            (0, Guidance(scale=jnp.array([5.0, 2.5])), 0.2),
            (0, Guidance(scale=jnp.full(2, 5.0), low=0.3, high=0.8), 0.2),
            (0, Guidance(scale=jnp.full(2, 5.0), rescale=0.7), 0.2),
            (0, Guidance(scale=jnp.full(2, 5.0)), 0.3),
        ]
    ]
    # The loop traces its body twice to learn the types of what it carries, whatever it computes.
    assert set(traces) == {(4, 4, 4, 2)}
    assert len(traces) <= 2
    for other in results[1:]:
        assert not np.array_equal(results[0], other)


@pytest.mark.parametrize("name", ["euler", "heun", "unipc"])
def test_the_first_step_that_is_not_finite_is_reported(name):
    process = RectifiedFlow()

    def breaks_at(step):
        broken_time = process.model_time(process.sampling_times(6))[step]
        return lambda x_t, time: jnp.where((time <= broken_time)[:, None, None, None], jnp.nan, x_t)

    # Heun looks at the time of the next step already.
    early = 1 if name == "heun" else 0
    for step in (0, 3, 5):
        result = sample(breaks_at(step), process, NOISE, Sampler(name=name, steps=6))
        assert result.nonfinite_step == max(step - early, 0)
    fine = sample(toy_denoiser, process, NOISE, Sampler(name=name, steps=6))
    assert fine.nonfinite_step == -1


def test_one_bad_image_in_the_batch_is_enough():
    def model_fn(x_t, time):
        return x_t.at[1, 0, 0, 0].set(jnp.inf)

    assert sample(model_fn, DDPM(), NOISE, Sampler(name="ddim", steps=4)).nonfinite_step == 0


MISTAKES = [
    (DDPM(), {"name": "eulr"}, "'eulr' does not fit process 'ddpm': choose one of 'ddpm', 'ddim'"),
    (
        RectifiedFlow(),
        {"name": "ddim"},
        "'ddim' does not fit process 'flow': choose one of 'euler'",
    ),
    (DDPM(timesteps=50), {"steps": 51}, "51 sampling steps.*choose 1 to 50"),
    (DDPM(), {"steps": 0}, "0 sampling steps"),
    (RectifiedFlow(), {"steps": 0}, "0 sampling steps"),
    (DDPM(), {"spacing": "even"}, "spacing 'even' does not fit.*'trailing', 'linspace'"),
    (RectifiedFlow(), {"spacing": "leading"}, "spacing 'leading' does not fit process 'flow'"),
    (DDPM(), {"shift": 3.0}, "shift 3.0 moves the times of flow models"),
    (RectifiedFlow(), {"shift": -1.0}, "shift -1.0: must be greater than 0"),
    (DDPM(), {"name": "ddim", "eta": 2.0}, "eta 2.0: must be from 0"),
    (DDPM(), {"eta": 0.5}, "eta 0.5 is for sampler 'ddim' only"),
    (DDPM(), {"strength": 0.0}, "strength 0.0: must be greater than 0"),
    (DDPM(), {"name": "ddpm"}, "sampler 'ddpm' draws fresh noise"),
]


@pytest.mark.parametrize(("process", "settings", "message"), MISTAKES)
def test_samplers_that_cannot_work_are_refused(process, settings, message):
    sampler = Sampler(**({"name": "euler", "steps": 10} | settings))
    with pytest.raises(LiditError, match=message):
        sample(toy_denoiser, process, NOISE, sampler)


def test_guidance_and_a_pair_of_predictions_belong_together():
    """A batch of two images would pass for a pair."""
    sampler = Sampler(name="euler", steps=2)
    pair_fn = autoguidance(toy_denoiser, toy_denoiser)
    with pytest.raises(LiditError, match="needs guidance"):
        sample(pair_fn, DDPM(), NOISE[:2], sampler)
    with pytest.raises(LiditError, match="a pair of predictions"):
        sample(toy_denoiser, DDPM(), NOISE[:2], sampler, guidance=Guidance(scale=2.0))


# --- starts that are not noise alone -----------------------------------------------------------


@pytest.mark.parametrize("process", [DDPM(prediction="v"), RectifiedFlow()])
def test_strength_takes_the_last_steps(process):
    whole, _ = solver_tables(process, Sampler(name="euler", steps=10))
    part, table = solver_tables(process, Sampler(name="euler", steps=10, strength=0.35))
    np.testing.assert_array_equal(part.times, whole.times[-4:])
    assert len(table.at) == 3


def every_sampler():
    for process in (DDPM(prediction="v"), RectifiedFlow()):
        for name in compatible_samplers(process):
            for spacing in compatible_spacings(process):
                yield pytest.param(process, name, spacing, id=f"{process.name}-{name}-{spacing}")


@pytest.mark.parametrize(("process", "name", "spacing"), every_sampler())
def test_a_perfect_prediction_leads_to_the_image(process, name, spacing):
    """Whatever the table, the image that the network always sees is where the path ends."""
    sampler = Sampler(name=name, steps=6, spacing=spacing)
    grid, table = solver_tables(process, sampler)
    x, anchor, last, older = 2.0 * grid.signal[0], 0.0, 0.0, 0.0
    for row in range(len(table.at)):
        parts = np.array([x, anchor, 2.0, last, older])
        x, anchor, last, older = table.to_x[row] @ parts, table.to_anchor[row] @ parts, 2.0, last
    assert x == pytest.approx(2.0, abs=1e-6)
    assert table.noise[-1] == 0


@pytest.mark.parametrize("name", ["euler", "heun", "unipc", "dpm++2m_sde"])
def test_known_parts_stay_and_the_rest_is_drawn(name):
    process, known_x0 = RectifiedFlow(), jnp.full(NOISE.shape, 0.25)
    mask = jnp.zeros(NOISE.shape, bool).at[:, :2].set(True)
    result = sample(
        toy_denoiser,
        process,
        NOISE,
        Sampler(name=name, steps=8),
        known=KnownRegion(known_x0, mask),
        step_noise=noise_of(range(3), NOISE.shape[1:]),
        trace=True,
    )
    np.testing.assert_allclose(result.x0[:, :2], 0.25, rtol=0, atol=1e-6)
    assert np.std(result.x0[:, 2:]) > 0.1
    if name == "euler":
        # On the way it is the known image at the right level of noise.
        t = process.sampling_times(8)[3]
        np.testing.assert_allclose(
            result.trajectory[2][:, :2], (1 - t) * 0.25 + t * NOISE[:, :2], rtol=0, atol=1e-5
        )


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


def test_fresh_noise_of_a_seed_is_bit_equal_in_every_batch_and_new_at_every_step():
    seeds = np.arange(100, 116)
    whole = np.asarray(noise_of(seeds, (5, 7, 3))(jnp.int32(4)))
    part = noise_of(seeds[3:4], (5, 7, 3))(jnp.int32(4))
    np.testing.assert_array_equal(part, whole[3:4])
    others = [initial_noise(seeds, (5, 7, 3)), noise_of(seeds, (5, 7, 3))(jnp.int32(5))]
    for other in others:
        assert abs(np.corrcoef(np.ravel(other), whole.ravel())[0, 1]) < 0.1


def test_varied_noise_stays_standard_normal_between_its_two_seeds():
    first, second = initial_noise([0, 0, 0], (64, 64, 4)), initial_noise([1, 1, 1], (64, 64, 4))
    varied = interpolate_noise(first, second, jnp.array([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(varied[0], first[0])
    np.testing.assert_allclose(varied[2], second[2], rtol=0, atol=1e-6)
    assert np.std(varied[1]) == pytest.approx(1, abs=0.02)
