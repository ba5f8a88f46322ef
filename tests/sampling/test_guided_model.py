"""The network on its prompts: both forms, with and without guidance, in a sampler's loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lidit_jax.models.dit
from lidit_jax.config.schema import ModelConfig
from lidit_jax.diffusion.guidance import Guidance
from lidit_jax.diffusion.process import RectifiedFlow
from lidit_jax.diffusion.samplers import Sampler, sample
from lidit_jax.encoders.conditions import TextConditions
from lidit_jax.models.layers import gated
from lidit_jax.models.lidit import LIDiT
from lidit_jax.sampling.guided_model import GuidedModel
from lidit_jax.sampling.image_batch import Blend, GuideModel
from tests.quick import random_parameters

PREFIX_LENGTHS = (2,)
MODEL = LIDiT(ModelConfig(width=16, depth=4, heads=2, patch=2, dtype="float32"))
NOISE = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 3)), jnp.float32)


def conditions(seed, batch=2):
    features = np.random.default_rng(seed).normal(size=(batch, 6, 8)).astype(np.float32)
    return TextConditions((jnp.asarray(features),), (jnp.ones((batch, 6), bool),))


@functools.cache
def parameters(seed=0):
    return random_parameters(
        MODEL.init, NOISE, jnp.zeros(2), *conditions(1), PREFIX_LENGTHS, seed=seed
    )


def guided(**changes):
    values = {"conditions": conditions(1), "unconditional": None, "blend": None, "guide": None}
    return GuidedModel(MODEL, parameters(), PREFIX_LENGTHS, **(values | changes))


KINDS = {
    "unguided": {},
    "blend": {"blend": Blend(conditions(3), np.float32([0.2, 0.7]))},
    "guided": {"unconditional": conditions(2, batch=1)},
    "guided blend": {
        "unconditional": conditions(2, batch=1),
        "blend": Blend(conditions(3), np.float32([0.2, 0.7])),
    },
    "autoguidance": {
        "unconditional": conditions(2, batch=1),
        "guide": GuideModel(MODEL, parameters(1)),
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_both_forms_of_an_evaluation_agree_where_nothing_has_changed(kind):
    model = guided(**KINDS[kind])
    time = jnp.full(2, 500.0)

    @jax.jit
    def forms(x_t, later):
        cached = model.cached()
        computed, activations = cached.compute(x_t, time)
        return (
            model.model_fn()(x_t, time),
            computed,
            cached.reuse(x_t, time, activations),
            cached.reuse(later, time, activations),
        )

    whole, *others, later = forms(NOISE, NOISE + 0.3)
    for other in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), whole, other)
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(whole, later, strict=True))


def test_blocks_run_only_where_an_evaluation_is_computed(monkeypatch):
    """Counted as they run: 5 evaluations with guidance of a network of 4 blocks."""
    runs = []

    def count(value):
        runs.append(value)
        return np.zeros_like(value)

    def counted(x, gate, h):
        # Its result is used, and no two calls read the same: none is left out. (Newer flax refuses
        # callbacks with effects inside of its scans.)
        nothing = jax.pure_callback(count, jax.ShapeDtypeStruct((), x.dtype), x[0, 0, 0])
        return gated(x, gate, h) + nothing

    monkeypatch.setattr(lidit_jax.models.dit, "gated", counted)  # three times a block
    model = guided(**KINDS["guided"])

    def blocks_run(interval):
        runs.clear()
        sampler = Sampler(name="euler", steps=5, cache_interval=interval)
        model_fn = model.model_fn() if interval == 1 else model.cached()
        run = jax.jit(
            lambda noise: (
                sample(model_fn, RectifiedFlow(), noise, sampler, guidance=Guidance(scale=3.0)).x0
            )
        )
        assert np.isfinite(run(NOISE)).all()
        jax.effects_barrier()
        return len(runs) / 3

    assert blocks_run(1) == 5 * 4
    assert blocks_run(2) == 3 * 4 + 2 * 2  # the two outer blocks always run
    assert blocks_run(9) == 1 * 4 + 4 * 2
