"""The loss without a network: what it is called with, and what its draws depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.config.schema import DiffusionConfig
from lidit_jax.diffusion import process as processes
from lidit_jax.training.diffusion_loss import diffusion_loss, fixed_draws, random_draws

FLOW = processes.from_config(DiffusionConfig(process="flow", prediction="velocity"))
DDPM = processes.from_config(DiffusionConfig())
KEYS = jax.random.split(jax.random.key(0))
BATCH = {
    "latent": np.random.default_rng(0).normal(size=(6, 4, 4, 3)).astype(np.float32),
    "index": np.array([3, 0, 7, 11, 8, 5], np.int32),
    "features": ("features",),
    "masks": ("masks",),
}


def rows(chosen):
    return BATCH | {name: BATCH[name][chosen] for name in ("latent", "index")}


@pytest.mark.parametrize("process", [FLOW, DDPM], ids=lambda process: process.name)
def test_a_perfect_network_has_none(process):
    draws = random_draws(process, BATCH, *KEYS)

    def predict(x_t, time, features, masks):
        np.testing.assert_array_equal(time, process.model_time(draws.times))
        np.testing.assert_array_equal(
            x_t, process.add_noise(BATCH["latent"], draws.noise, draws.times)
        )
        assert (features, masks) == (BATCH["features"], BATCH["masks"])
        return process.target(BATCH["latent"], draws.noise, draws.times), "gates"

    losses, others = diffusion_loss(predict, process, BATCH, draws)
    np.testing.assert_array_equal(losses, np.zeros(6))
    assert others == "gates"


def test_each_sample_has_a_loss_of_its_own():
    draws = fixed_draws(FLOW, BATCH)
    losses, _ = diffusion_loss(lambda x_t, *_: (jnp.zeros_like(x_t), None), FLOW, BATCH, draws)
    expected = np.mean(np.square(draws.noise - BATCH["latent"]), axis=(1, 2, 3))
    # Sums of 48 squares in float32, in another order.
    np.testing.assert_allclose(losses, expected, rtol=48 * 2**-24)


@pytest.mark.parametrize("draw", [lambda p, b: random_draws(p, b, *KEYS), fixed_draws])
def test_draws_follow_the_record_not_its_place_or_company(draw):
    whole, part = draw(FLOW, BATCH), draw(FLOW, rows([4, 1]))
    for all_rows, some in zip(whole, part, strict=True):
        np.testing.assert_array_equal(np.asarray(all_rows)[[4, 1]], some)


def test_training_draws_anew_at_each_step_and_validation_never():
    first, second = (random_draws(FLOW, BATCH, *jax.random.split(k)) for k in KEYS)
    assert not np.any(first.times == second.times)
    times = FLOW.validation_times(8)
    np.testing.assert_array_equal(fixed_draws(FLOW, BATCH).times, times[BATCH["index"] % 8])
