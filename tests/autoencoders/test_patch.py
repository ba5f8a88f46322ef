"""The image autoencoder: sizes, the posterior, and what its KL term means."""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.autoencoders.latent_model import boxed_shapes
from lidit_jax.autoencoders.patch import Autoencoder
from lidit_jax.config.schema import VAEConfig

from ..quick import random_parameters

MODEL = Autoencoder(VAEConfig(width=8, blocks=1))
SIZE = (16, 24)


def images(seed=0):
    """Two images [2, H, W, 3] in [-1, 1]."""
    values = np.random.default_rng(seed).uniform(-1, 1, size=(2, *SIZE, 3))
    return jnp.asarray(values, jnp.float32)


@jax.jit
def encode(params, image):
    return MODEL.apply({"params": params}, image, method="encode")


@jax.jit
def decode(params, latent):
    return MODEL.apply({"params": params}, latent, method="decode")


@jax.jit
def reconstruct(params, image, key):
    return MODEL.apply({"params": params}, image, jax.random.split(key, len(image)))


@pytest.fixture(scope="module")
def params():
    return random_parameters(MODEL.init, images(), jax.random.split(jax.random.key(0), 2))


def with_posterior(params, mean, log_variance):
    """The same autoencoder, whose posterior is one Gaussian whatever the picture."""
    conv = params["encoder"]["conv_out"]
    halves = jnp.array([mean, log_variance], jnp.float32)
    conv = {
        "kernel": jnp.zeros_like(conv["kernel"]),
        "bias": jnp.repeat(halves, conv["bias"].shape[0] // 2),
    }
    return params | {"encoder": params["encoder"] | {"conv_out": conv}}


def test_the_default_is_the_papers_eight_times_down_to_sixteen_channels(params):
    assert (VAEConfig().downsample, VAEConfig().channels) == (8, 16)
    latent = encode(params, images())
    assert latent.shape == (2, SIZE[0] // 8, SIZE[1] // 8, 16)
    assert decode(params, latent).shape == (2, *SIZE, 3)


@pytest.mark.parametrize(
    ("patch", "downsample"), [(1, 2), (2, 2), (1, 4), (2, 8), (4, 4), (8, 8), (4, 16)]
)
def test_patches_and_strided_stages_share_the_downsampling(patch, downsample):
    """As shapes only, which needs no parameters."""
    config = VAEConfig(patch=patch, downsample=downsample, channels=5, width=8, blocks=1)
    model, image = Autoencoder(config), jax.ShapeDtypeStruct((1, 32, 48, 3), jnp.float32)
    key = jax.random.key(0)
    variables = jax.eval_shape(model.init, key, image, key[None])
    latent = jax.eval_shape(lambda v, x: model.apply(v, x, method="encode"), variables, image)
    assert latent.shape == (1, 32 // downsample, 48 // downsample, 5)
    decoded = jax.eval_shape(lambda v, z: model.apply(v, z, method="decode"), variables, latent)
    assert decoded.shape == image.shape
    strided = [name for name in variables["params"]["encoder"] if name.startswith("down_")]
    assert len(strided) == math.log2(downsample // patch)


def test_each_strided_stage_doubles_the_channels():
    config = dataclasses.replace(MODEL.config, patch=1, downsample=4)
    shapes = nn.unbox(boxed_shapes(Autoencoder(config)))
    widths = [shapes["encoder"][name]["kernel"].shape[-1] for name in ("conv_in", "down_1")]
    assert [*widths, shapes["encoder"]["down_2"]["kernel"].shape[-1]] == [8, 16, 32]
    assert shapes["decoder"]["conv_in"]["kernel"].shape[-1] == 32


def test_encoding_is_deterministic_and_training_samples(params):
    np.testing.assert_array_equal(encode(params, images()), encode(params, images()))
    first, same, other = (
        reconstruct(params, images(), jax.random.key(seed))[0] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-3


def test_each_picture_is_sampled_with_its_own_key(params):
    """So that the loss does not depend on how a batch is split."""
    keys = jax.random.split(jax.random.key(0), 2)
    sample = jax.jit(lambda x, keys: MODEL.apply({"params": params}, x, keys)[0])
    both, second = sample(images(), keys), sample(images()[1:], keys[1:])
    np.testing.assert_allclose(both[1:], second, atol=1e-5)


def test_bfloat16_computes_in_it_and_returns_float32(params):
    half = MODEL.clone(dtype=jnp.bfloat16)
    inputs = {encode: images(), decode: encode(params, images())}
    for exact, argument in inputs.items():
        apply = functools.partial(half.apply, method=exact.__name__)
        got, expected = jax.jit(apply)({"params": params}, argument), exact(params, argument)
        assert got.dtype == jnp.float32
        rms = jnp.sqrt(jnp.mean(jnp.square(expected)))
        assert 0 < jnp.sqrt(jnp.mean(jnp.square(got - expected))) <= 0.02 * rms


def test_pictures_of_a_batch_do_not_mix(params):
    latent = encode(params, images())
    np.testing.assert_allclose(encode(params, images()[::-1])[::-1], latent, atol=1e-6)


@pytest.mark.parametrize(
    ("mean", "log_variance", "kl"),
    [(0.0, 0.0, 0.0), (2.0, 0.0, 2.0), (0.0, 1.0, 0.5 * (math.e - 2)), (0.0, -50.0, 0.5 * 29)],
)
def test_kl_is_that_of_a_gaussian_to_the_standard_normal(params, mean, log_variance, kl):
    """Per latent value; the log-variance is clipped to -30, so that it stays finite."""
    _, measured = reconstruct(
        with_posterior(params, mean, log_variance), images(), jax.random.key(0)
    )
    assert measured.shape == (2,)
    np.testing.assert_allclose(measured, kl, rtol=1e-6)


def test_without_variance_the_sample_is_the_mean(params):
    certain = with_posterior(params, 0.7, -50.0)
    np.testing.assert_array_equal(encode(certain, images()), jnp.float32(0.7))
    reconstruction, _ = reconstruct(certain, images(), jax.random.key(0))
    expected = decode(params, jnp.full((2, 2, 3, 16), 0.7))
    np.testing.assert_allclose(reconstruction, expected, atol=1e-3)


def test_every_parameter_learns(params):
    @jax.jit
    @jax.grad
    def gradient(params):
        reconstruction, kl = reconstruct(params, images(), jax.random.key(0))
        return jnp.mean(jnp.square(reconstruction - images())) + 1e-4 * jnp.mean(kl)

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(params)):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0, path
