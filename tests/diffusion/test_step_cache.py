"""Step caching in the sampler's loop: which evaluations are computed, and what the others see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.diffusion.guidance import Guidance, Pair
from lidit_jax.diffusion.process import DDPM, RectifiedFlow
from lidit_jax.diffusion.samplers import Sampler, compatible_samplers, sample, solver_tables
from lidit_jax.diffusion.step_cache import CachedModel
from lidit_jax.errors import LiditError
from tests.diffusion.toy import NOISE

PROCESSES = (DDPM(prediction="x0"), RectifiedFlow(prediction="x0"))
EVERY_SAMPLER = [(process, name) for process in PROCESSES for name in compatible_samplers(process)]


def toy(x_t, time, remembered):
    """Predicts from its own x_t, its own time, and what it remembers."""
    return 0.5 * x_t + 1e-3 * time[:, None, None, None] + remembered


def cached_toy(computed):
    """It remembers 2e-3 times the time and the first value of x_t of its last full evaluation."""

    def compute(x_t, time):
        jax.debug.callback(lambda time: computed.append(float(time)), time[0])
        cached = 2e-3 * time[:, None, None, None] + x_t[:, :1, :1, :1]
        return toy(x_t, time, cached), cached

    return CachedModel(compute, toy)


@pytest.mark.parametrize(("process", "name"), EVERY_SAMPLER)
def test_every_sampler_takes_the_rest_from_the_last_computed_evaluation(process, name):
    computed = []
    sampler = Sampler(name=name, steps=5, cache_interval=3)
    result = sample(
        cached_toy(computed),
        process,
        NOISE,
        sampler,
        step_noise=lambda _: jnp.zeros_like(NOISE),
        trace=True,
    )
    grid, table = solver_tables(process, sampler)
    times = np.asarray(process.model_time(grid.times[table.at]), np.float32)
    jax.effects_barrier()
    np.testing.assert_allclose(computed, times[::3], rtol=1e-6)

    x, anchor = NOISE, np.zeros_like(NOISE)
    previous = older = np.zeros_like(NOISE)
    for row, time in enumerate(times):
        if row % 3 == 0:
            remembered = 2e-3 * time + x[:, :1, :1, :1]
        x0 = 0.5 * x + 1e-3 * time + remembered
        parts = np.stack([x, anchor, x0, previous, older])
        x, anchor = (np.tensordot(w[row], parts, 1) for w in (table.to_x, table.to_anchor))
        previous, older = x0, previous
        np.testing.assert_allclose(result.trajectory[row], x, rtol=1e-4, atol=1e-4)


def test_guidance_compares_two_predictions_that_reuse():
    def compute(x_t, time):
        return Pair(x_t, 0.5 * x_t), x_t

    def reuse(x_t, time, cached):
        return Pair(cached, 0.5 * cached)

    process, sampler = RectifiedFlow(prediction="x0"), Sampler(name="euler", steps=4)
    arguments = {"guidance": Guidance(scale=2.0), "trace": True}
    plain = sample(lambda *a: compute(*a)[0], process, NOISE, sampler, **arguments)
    cached = Sampler(name="euler", steps=4, cache_interval=2)
    result = sample(CachedModel(compute, reuse), process, NOISE, cached, **arguments)
    np.testing.assert_array_equal(result.trajectory[0], plain.trajectory[0])
    # The second evaluation predicts what the first one did: 1.5 x_t of the noise.
    np.testing.assert_allclose(
        result.trajectory[1], 0.5 * NOISE + 0.5 * 1.5 * NOISE, rtol=1e-5, atol=1e-5
    )


def test_a_model_without_a_step_cache_is_refused():
    sampler = Sampler(name="euler", steps=4, cache_interval=2)
    with pytest.raises(LiditError, match="cache_interval 2 needs a model with a step cache"):
        sample(lambda x_t, time: x_t, RectifiedFlow(), NOISE, sampler)
    with pytest.raises(LiditError, match=r"cache_interval 0: must be 1 \(off\) or more"):
        solver_tables(RectifiedFlow(), Sampler(name="euler", steps=4, cache_interval=0))
