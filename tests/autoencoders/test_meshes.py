"""Autoencoders on several devices: weights split, the same pictures, nothing large gathered."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from lidit_jax.autoencoders.frozen import FrozenAutoencoder
from lidit_jax.autoencoders.kl import AutoencoderKL
from lidit_jax.autoencoders.latent_model import boxed_shapes
from lidit_jax.autoencoders.patch import Autoencoder
from lidit_jax.autoencoders.tiny import TinyAutoencoder
from lidit_jax.config.load import load_recipe
from lidit_jax.config.schema import MeshConfig, VAEConfig
from lidit_jax.errors import LiditError
from lidit_jax.parallel.mesh import batch_sharding, check_divisions, make_mesh, replicated
from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES, shardings_that_divide

from ..quick import random_parameters

MODELS = {
    "patch": Autoencoder(VAEConfig(width=16, blocks=1)),
    "kl": AutoencoderKL(stages=(8, 16), channels=4, blocks=1, norm_groups=4, quant=True),
    "tiny": TinyAutoencoder(width=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1)),
}
MESHES = {
    "fsdp": MeshConfig(data=1, fsdp=8),
    "data, fsdp, tensor": MeshConfig(data=2, fsdp=2, tensor=2),
}
IMAGES = np.random.default_rng(0).uniform(-1, 1, (8, 24, 24, 3)).astype(np.float32)


@functools.cache
def parameters(name):
    return random_parameters(lambda key: {"params": boxed_shapes(MODELS[name])})


def error(model, params, images):
    latent = model.apply({"params": params}, images, method="encode")
    return jnp.mean((model.apply({"params": params}, latent, method="decode") - images) ** 2)


@functools.cache
def on_one_device(name):
    return jax.jit(jax.value_and_grad(functools.partial(error, MODELS[name])))(
        parameters(name), IMAGES
    )


@pytest.mark.parametrize("mesh_name", MESHES)
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_are_those_of_one_device(name, mesh_name):
    mesh = make_mesh(MESHES[mesh_name])
    shardings = shardings_that_divide(boxed_shapes(MODELS[name]), mesh)
    gradient = jax.jit(
        jax.value_and_grad(functools.partial(error, MODELS[name])),
        out_shardings=(replicated(mesh), shardings),
    )
    params = jax.device_put(parameters(name), shardings)
    images = jax.device_put(IMAGES, batch_sharding(mesh))
    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        program = gradient.lower(params, images).compile()
    value, gradients = program(params, images)
    expected_value, expected = on_one_device(name)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    jax.tree.map(
        lambda leaf, reference: np.testing.assert_allclose(leaf, reference, atol=1e-5 * largest),
        gradients,
        expected,
    )
    split = [leaf for leaf in jax.tree.leaves(gradients) if not leaf.is_fully_replicated]
    assert sum(leaf.size for leaf in split) > 0.8 * sum(map(jnp.size, jax.tree.leaves(gradients)))
    gathered = re.findall(r" = \w+\[([\d,]+)\]\S* all-gather\(", program.as_text())
    sizes = {np.prod([int(n) for n in shape.split(",")]) for shape in gathered}
    assert sizes, "weights are gathered where they are used"
    weights = {leaf.size for leaf in jax.tree.leaves(expected)}
    assert sizes <= weights, "no image is gathered, whole or in patches"


@pytest.mark.parametrize("count", [8, 3])
def test_a_frozen_autoencoder_on_a_mesh_draws_the_same_pictures(count):
    """Also of a number of images that does not divide over the devices."""
    autoencoder = FrozenAutoencoder(MODELS["kl"], parameters("kl"), "random")
    latents = autoencoder.encode(autoencoder.params, IMAGES[:count])
    expected = jax.jit(autoencoder.decode)(autoencoder.params, latents)
    mesh = make_mesh(MESHES["fsdp"])
    placed = autoencoder.on(mesh)
    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        decoded = jax.jit(placed.decode)(placed.params, latents)
    np.testing.assert_allclose(decoded, expected, atol=1e-5)
    assert autoencoder.params is parameters("kl"), "the autoencoder itself stays where it was"


def test_frozen_weights_that_do_not_divide_stay_whole():
    """Published autoencoders come in any width; one that is trained is refused instead."""
    model = TinyAutoencoder(width=12, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
    params = random_parameters(lambda key: {"params": boxed_shapes(model)})
    specs = {}
    for fsdp in (4, 8):
        mesh = make_mesh(MeshConfig(data=8 // fsdp, fsdp=fsdp))
        placed = FrozenAutoencoder(model, params, "random").on(mesh).params
        specs[fsdp] = placed["encoder"]["layers_0"]["kernel"].sharding.spec
    assert specs == {4: PartitionSpec(None, None, None, "fsdp"), 8: PartitionSpec(*[None] * 4)}


def test_a_mesh_that_does_not_divide_a_trained_autoencoder_is_refused():
    config = load_recipe("demo_vae", ["vae.width=12", "training.batch_size=8"])
    with pytest.raises(LiditError, match=r"fsdp=8 does not divide config.vae.width=12.*6 and 12"):
        check_divisions(config, make_mesh(MESHES["fsdp"]))
