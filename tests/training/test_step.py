"""One update: schedule, clipping, averages and counters."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lidit_jax.checkpoints.state import create_state
from lidit_jax.config.load import load_recipe
from lidit_jax.training.optimizers import make_optimizer, rate_of
from lidit_jax.training.step import accumulated_gradient, make_train_step
from tests.numerics import rounding


def quadratic(params, frozen, batch, key):
    """A loss whose gradient is params - target; logs the key that it was given."""
    error = params["w"] - batch["target"]
    return 0.5 * jnp.sum(error**2), {"draw": jax.random.uniform(key)}


def run(steps, *overrides):
    """States and metrics of some updates of w [2], from 0 towards (3, 4)."""
    settings = ["optimizer.warmup_steps=0", "optimizer.learning_rate=1e-3", *overrides]
    config = load_recipe("demo", settings)
    optimizer = make_optimizer(config)
    state = create_state(lambda key: {"w": jnp.zeros(2)}, optimizer, config)
    step = jax.jit(make_train_step(quadratic, config))
    history = []
    for _ in range(steps):
        state, metrics = step(state, {}, {"target": jnp.array([3.0, 4.0])}, rate_of(config))
        history.append((state, {name: metric.compute() for name, metric in metrics.items()}))
    return history


@pytest.mark.parametrize("schedule", ["constant", "cosine", "warmup_stable_decay"])
def test_the_numbers_of_a_learning_rate_are_no_part_of_the_program(schedule):
    """A run that is resumed with others finds its program in the cache of compiled ones."""

    def lowered(*settings):
        config = load_recipe("demo", [f"optimizer.schedule={schedule}", *settings])
        make = functools.partial(create_state, lambda key: {"w": jnp.zeros(2)})
        state = jax.eval_shape(lambda: make(make_optimizer(config), config))
        step = jax.jit(make_train_step(quadratic, config))
        return step.lower(state, {}, {"target": jnp.zeros(2)}, rate_of(config)).as_text()

    others = ["training.steps=77", "optimizer.decay_steps=7", "optimizer.learning_rate=1e-3"]
    assert lowered("optimizer.warmup_steps=5", *others) == lowered()


def test_counters_and_metrics():
    history = run(3)
    assert [int(state.step) for state, _ in history] == [1, 2, 3]
    assert [int(state.position) for state, _ in history] == [1, 2, 3]
    state, metrics = history[0]
    assert metrics["loss"] == pytest.approx(12.5)
    assert metrics["gradient_norm"] == pytest.approx(5.0), "before clipping"
    assert metrics["learning_rate"] == pytest.approx(1e-3)
    # Adam's first step is the learning rate, whatever the gradient.
    np.testing.assert_allclose(state.params["w"], [1e-3, 1e-3], rtol=1e-4)


def test_every_step_and_seed_draws_anew_and_repeatably():
    draws = [float(metrics["draw"]) for _, metrics in run(3)]
    assert len(set(draws)) == 3
    assert draws == [float(metrics["draw"]) for _, metrics in run(3)]
    assert draws[0] != float(run(1, "seed=1")[0][1]["draw"])


def test_the_average_follows_fast_at_first_and_slowly_later():
    history = run(30, "training.ema_decay=0.5")
    average = np.zeros(2)
    for count, (state, _) in enumerate(history):
        decay = min(0.5, (1 + count) / (10 + count))
        average = decay * average + (1 - decay) * np.asarray(state.params["w"])
        np.testing.assert_allclose(state.ema_params["w"], average, rtol=1e-5)


def test_the_gradient_is_clipped_by_its_global_norm():
    config = load_recipe("demo", ["optimizer.clip_norm=0.5"])
    optimizer = make_optimizer(config)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    gradient = {"a": jnp.array([0.0, 3.0]), "b": jnp.array([4.0])}
    clipped, _ = optax.clip_by_global_norm(0.5).update(gradient, optax.EmptyState())
    expected = optimizer.update(clipped, optimizer.init(params), params)[0]
    got = optimizer.update(gradient, optimizer.init(params), params)[0]
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def per_record(params, frozen, batch, key):
    """A loss with a random draw a record, as the real one has."""
    noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), (2,)))(batch["index"])
    losses = jnp.sum((params["w"] + noise - batch["target"]) ** 2, axis=-1)
    return jnp.mean(losses), {"largest": jnp.max(losses)}


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_is_the_whole_batch(parts):
    rng = np.random.default_rng(0)
    batch = {
        "target": jnp.asarray(rng.normal(size=(8, 2)), jnp.float32),
        "index": jnp.arange(8),
    }
    params, key = {"w": jnp.array([0.3, -0.2])}, jax.random.key(1)
    (expected, _), expected_gradient = accumulated_gradient(per_record, 1)(params, {}, batch, key)
    (value, metrics), gradient = accumulated_gradient(per_record, parts)(params, {}, batch, key)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    # A gradient is a mean of 8 numbers of either sign, as large as twice the root of the loss.
    atol = rounding(terms=8) * 2 * math.sqrt(expected)
    np.testing.assert_allclose(gradient["w"], expected_gradient["w"], rtol=0, atol=atol)
    assert metrics["largest"].count == parts


@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon"])
def test_every_optimizer_solves_a_matrix_and_moves_on(name):
    settings = ["optimizer.warmup_steps=0", "optimizer.learning_rate=0.05"]
    config = load_recipe("demo", [*settings, f"optimizer.name={name}"])
    optimizer = make_optimizer(config)
    rng = np.random.default_rng(0)
    target = jnp.asarray(rng.normal(size=(2, 8, 8)), jnp.float32)

    def loss(params, frozen, batch, key):
        layer = params["layer"]
        return jnp.mean((layer["kernel"] + layer["bias"][:, None] - target) ** 2), {}

    def init(key):
        return {"layer": {"kernel": jnp.zeros((2, 8, 8)), "bias": jnp.zeros((2, 8))}}

    state = create_state(init, optimizer, config)
    step = jax.jit(make_train_step(loss, config))
    losses = []
    for _ in range(200):
        state, metrics = step(state, {}, {}, rate_of(config))
        losses.append(float(metrics["loss"].compute()))
    assert losses[-1] < 0.2 * losses[0]
