"""Cached or online: operations of the autoencoder as XLA counts them, and the break-even price."""

import math

import jax
import jax.numpy as jnp
import pytest

from lidit_jax.autoencoders.kl import AutoencoderKL
from lidit_jax.config.load import load_recipe
from lidit_jax.errors import LiditError
from lidit_jax.hardware.topologies import parse_topology
from lidit_jax.planning.frozen_costs import kl_encoder_flops, latent_cost, text_cost
from lidit_jax.planning.memory import estimate_memory
from lidit_jax.planning.plan import describe_text, make_plan
from lidit_jax.planning.plan_mesh import recipe_mesh
from lidit_jax.planning.roofline import Split


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


def described(*overrides):
    config = load_recipe("lidit_10b", overrides)
    return config, describe_text(config)


def test_layers_make_features_wider_and_only_the_highest_makes_them_dearer():
    """Of LLMs of 32 blocks: half of one, and all of the other."""
    config, plain = described("encoders.layers=(-3, -1)")
    _, several = described("encoders.layers=((16, 8), 'all')")
    assert several.bytes_a_caption == (2 + 32) / 2 * plain.bytes_a_caption
    assert [stream.layers for stream in several.streams] == [2, 32]
    assert several.encoding_flops == 2 * 100 * (8e9 * 16 / 32 + 7e9)
    one, more = (
        estimate_memory(config, Split(data=4, fsdp=256), 1024, text.streams).working
        for text in (plain, several)
    )
    rows = config.training.batch_size / 1024
    assert more - one == pytest.approx(6 * 2 * rows * 130 * (2 + 32) * 4096)
    _, unknown = described("encoders.sources=('my/own-llm',)", "encoders.layers=((40, 80),)")
    assert unknown.streams[0].layers == 2, "it may have more blocks than assumed"
    with pytest.raises(LiditError, match="layer 33 does not exist: this encoder has 32 blocks"):
        described("encoders.layers=(-1, 33)")


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
