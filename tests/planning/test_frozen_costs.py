"""Cached or online: operations of the autoencoder as XLA counts them, and the break-even price."""

import math

import jax
import jax.numpy as jnp
import pytest

from lidit_jax.autoencoders.kl import AutoencoderKL
from lidit_jax.config.load import load_recipe
from lidit_jax.hardware.topologies import parse_topology
from lidit_jax.planning.frozen_costs import kl_encoder_flops, latent_cost, text_cost
from lidit_jax.planning.plan import make_plan
from lidit_jax.planning.plan_mesh import recipe_mesh


def test_operations_of_the_encoder_are_those_of_the_compiler():
    stages, side, channels = (32, 64, 128, 128), 128, 16
    model = AutoencoderKL(stages=stages, channels=channels)
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)

    def encode(params, image):
        return model.apply(params, image, method="encode")

    params = jax.eval_shape(
        lambda key, image: model.init(key, image, jax.random.split(key, 1)),
        jax.random.key(0),
        image,
    )
    counted = jax.jit(encode).lower(params, image).cost_analysis()["flops"]
    # It also counts norms and activations, and no products with the padding of zeros.
    assert kl_encoder_flops(side, stages, 2, channels) == pytest.approx(counted, rel=0.05)


def costs(*overrides, images=30_000_000):
    config = load_recipe("lidit_1b", overrides)
    topology = parse_topology("v5e:16x16", 1)
    plan = make_plan(config, topology, recipe_mesh(config, topology))
    return plan, text_cost(plan, images), latent_cost(config, plan, images)


def test_a_cache_saves_what_an_epoch_repeats():
    plan, text, latents = costs()
    epochs = plan.batch * plan.steps / 30e6
    for cost in (text, latents):
        assert cost.online_chip_hours / cost.cached_chip_hours == pytest.approx(epochs)
    # 32 x 32 x 16 values of float16.
    assert latents.bytes_per_sample == 2 * 32 * 32 * 16
    assert latents.cached_bytes == 30e6 * 2 * 32 * 32 * 16
    assert latents.read_per_second == pytest.approx(2048 * 2 * 32 * 32 * 16 / plan.seconds)
    assert text.bytes_per_sample == plan.text.bytes_a_caption


def test_what_is_used_once_is_not_worth_a_cache():
    plan, text, latents = costs(images=2048 * 500_000)
    assert text.break_even == latents.break_even == 0.0
    assert text.online_chip_hours == text.cached_chip_hours > plan.chip_hours


def test_break_even_is_saved_time_per_storage():
    _, _, latents = costs()
    saved = latents.online_chip_hours - latents.cached_chip_hours
    stored = latents.cached_bytes / 1e12 * latents.months
    assert latents.break_even == pytest.approx(saved / stored)
    assert math.isfinite(latents.break_even)


def test_pixels_need_no_encoder():
    _, _, latents = costs("vae.source='pixels'", "model.patch=16")
    assert latents.online_chip_hours == 0.0
