"""Learning rates, and what weight decay acts on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers, muon

from lidit_jax.config.load import load_recipe
from lidit_jax.errors import LiditError
from lidit_jax.training.optimizers import (
    OPTIMIZERS,
    learning_rate,
    make_optimizer,
    rate_of,
    schedule_warnings,
)

# --- learning rates ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0, 0.5, 1, 1, 1, 1]),
        ("cosine", [0, 0.5, 1, 0.5, 0, 0]),
        ("warmup_stable_decay", [0, 0.5, 1, 1, 0, 0]),
    ],
)
def test_the_learning_rate_warms_up_then_stays_or_falls(schedule, expected):
    overrides = [f"optimizer.schedule={schedule}", "optimizer.warmup_steps=10"]
    overrides += ["optimizer.decay_steps=10"]
    overrides += ["optimizer.learning_rate=1", "training.steps=30"]
    config = load_recipe("demo", overrides)
    rate = learning_rate(schedule, rate_of(config))
    values = [float(rate(step)) for step in (0, 5, 10, 20, 30, 40)]
    assert values == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "warmup_stable_decay"])
@pytest.mark.parametrize("numbers", [(1.5e-3, 30, 400, 1200), (3e-4, 0, 37, 555), (1e-3, 7, 11, 9)])
def test_rates_are_those_of_numbers_that_are_compiled_in(schedule, numbers):
    """With those, and optax's own lines and waves, checkpoints were trained before.

    Compilers that fold constants round a product or a cosine otherwise.
    """
    peak, warmup, decay_steps, steps = numbers
    settings = [f"optimizer.schedule={schedule}", f"optimizer.learning_rate={peak}"]
    settings += [f"optimizer.warmup_steps={warmup}", f"optimizer.decay_steps={decay_steps}"]
    config = load_recipe("demo", [*settings, f"training.steps={steps}"])
    after = max(steps - warmup, 0)
    fitted = min(decay_steps, after)
    rest = {
        "constant": [(optax.constant_schedule(peak), warmup)],
        "cosine": [(optax.cosine_decay_schedule(peak, max(after, 1)), warmup)],
        "warmup_stable_decay": [
            (optax.constant_schedule(peak), warmup),
            (optax.linear_schedule(peak, 0.0, max(fitted, 1)), max(steps - fitted, warmup)),
        ],
    }[schedule]
    rates, begins = zip(*rest, strict=True)
    constants = optax.join_schedules(
        [optax.linear_schedule(0.0, peak, max(warmup, 1)), *rates], begins
    )

    counts = jnp.arange(steps + 20)
    expected = jax.jit(lambda: jax.lax.map(constants, counts))()
    got = jax.jit(lambda rate: jax.lax.map(learning_rate(schedule, rate), counts))(rate_of(config))
    rounded = 4 * np.finfo(np.float32).eps * peak
    np.testing.assert_allclose(got, expected, rtol=0, atol=rounded)


def test_a_decay_that_does_not_fit_takes_what_the_warm_up_leaves_and_says_so():
    settings = ["optimizer.schedule=warmup_stable_decay", "optimizer.learning_rate=1"]
    settings += ["optimizer.warmup_steps=10", "optimizer.decay_steps=100", "training.steps=30"]
    config = load_recipe("demo", settings)
    rate = learning_rate("warmup_stable_decay", rate_of(config))
    assert [float(rate(step)) for step in (5, 10, 20, 30)] == pytest.approx([0.5, 1, 0.5, 0])
    (line,) = schedule_warnings(config, resumed=False)
    assert "config.optimizer.decay_steps=100" in line
    assert "config.training.steps=30" in line
    assert "over the last 20 steps" in line


def test_a_warm_up_as_long_as_the_run_is_refused_and_stays_where_it_was_begun():
    """A resumed run may be made longer: another warm-up would then have made it another run."""
    settings = ["optimizer.schedule=constant", "optimizer.learning_rate=1"]
    settings += ["optimizer.warmup_steps=40", "training.steps=10"]
    config = load_recipe("demo", settings)
    assert float(learning_rate("constant", rate_of(config))(10)) == 0.25
    (line,) = schedule_warnings(config, resumed=True)
    for message in (line, _refusal(config)):
        assert "config.optimizer.warmup_steps=40 fills the whole run" in message
        assert "of config.training.steps=10: the learning rate would end at 0.25 of 1;" in message
    assert "as with --config.optimizer.warmup_steps=1, or raise" in _refusal(config)


def _refusal(config):
    with pytest.raises(LiditError) as refusal:
        schedule_warnings(config, resumed=False)
    return str(refusal.value)


@pytest.mark.parametrize("name", ["demo", "demo:pairs", "demo_vae", "vae_16ch", "lidit_1b"])
def test_the_recipes_schedules_fit(name):
    assert schedule_warnings(load_recipe(name), resumed=False) == []


# --- weight decay ------------------------------------------------------------------------------

DECAY, RATE = 0.1, 0.01
PARAMS = {
    "blocks": {
        "mlp": {"kernel": (2, 4, 4), "bias": (2, 4)},
        "query_norm": {"scale": (2, 4)},
        "modulation": {"linear": {"kernel": (2, 4, 4), "bias": (2, 4)}},
    },
    "position": {"conv_0": {"kernel": (3, 3, 4, 4), "bias": (4,)}},
    "block_0": {"gate": {"linear": {"kernel": (4, 4), "bias": (4,)}}},
}
SHRUNK = {("blocks", "mlp", "kernel"), ("position", "conv_0", "kernel")}


def changes(name, decay):
    """By which factor one update without any gradient changes each parameter, all of them 1."""
    settings = [f"optimizer.name={name}", f"optimizer.weight_decay={decay}"]
    settings += [f"optimizer.learning_rate={RATE}", "optimizer.warmup_steps=0"]
    optimizer = make_optimizer(load_recipe("demo", [*settings, "optimizer.schedule=constant"]))
    params = jax.tree.map(jnp.ones, PARAMS, is_leaf=lambda x: isinstance(x, tuple))
    state = optimizer.init(params)
    gradient = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(gradient, state, params)
    after = optax.apply_updates(params, updates)
    flat = jax.tree_util.tree_leaves_with_path(after)
    return state, {tuple(key.key for key in path): np.unique(leaf) for path, leaf in flat}


@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon"])
def test_weight_decay_acts_on_kernels_but_not_on_norms_biases_modulations_and_gates(name):
    _, factors = changes(name, DECAY)
    # Adafactor of optax takes the share itself, the others times the learning rate.
    expected = 1 - DECAY * (1 if name == "adafactor" else RATE)
    for path, (factor,) in factors.items():
        # One product and one difference of float32 numbers near 1.
        wanted = expected if path in SHRUNK else 1.0
        assert factor == pytest.approx(wanted, abs=2.0**-22), path


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_state_is_the_same_with_and_without_weight_decay(name):
    """So that checkpoints of earlier versions go on; Adafactor has one more empty part with it."""
    structures = [jax.tree.structure(changes(name, decay)[0]) for decay in (0.0, DECAY)]
    assert structures[0] == structures[1]


# --- Muon --------------------------------------------------------------------------------------


def test_muon_in_a_loop_is_optaxs_and_keeps_its_state():
    """Checkpoints from before go on: the same state, and the same updates up to rounding."""
    config = load_recipe("demo", ["optimizer.name=muon", "optimizer.warmup_steps=0"])
    settings, rate = config.optimizer, optax.constant_schedule(0.01)
    ours = OPTIMIZERS["muon"](settings, rate)
    matrix = jax.random.normal(jax.random.key(0), (2, 6, 4))
    params = {"mlp": {"kernel": matrix, "bias": matrix[0, 0]}}
    theirs = muon(
        rate,
        beta=settings.beta1,
        weight_decay=settings.weight_decay,
        mu_dtype=settings.momentum_dtype,
        adam_b1=settings.beta1,
        adam_b2=settings.beta2,
        adam_weight_decay=settings.weight_decay,
        muon_weight_dimension_numbers=lambda tree: jax.tree.map(
            lambda leaf: MuonDimensionNumbers(-2, -1) if leaf.ndim > 1 else None, tree
        ),
        consistent_rms=0.2,
    )
    state = theirs.init(params)
    assert jax.tree.map(jnp.shape, ours.init(params)) == jax.tree.map(jnp.shape, state)
    expected, expected_state = jax.jit(theirs.update)(params, state, params)
    got, got_state = jax.jit(ours.update)(params, state, params)
    assert jax.tree.structure(got_state) == jax.tree.structure(expected_state)
    # Updates of 0.01 or less; the iterations amplify a rounding of 2**-24 by 3.4 in each of five.
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=0.01 * 3.4**5 * 2.0**-24)
    assert str(jax.make_jaxpr(ours.update)(params, state, params)).count("dot_general") == 3
