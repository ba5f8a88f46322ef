"""Latents of images: on all devices, in one program per shape, as in training."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.autoencoders.frozen import FrozenAutoencoder, build_autoencoder
from lidit_jax.config.schema import VAEConfig
from lidit_jax.data.latent_encoding import LatentEncoder
from tests.numerics import rounding


@pytest.fixture(scope="module")
def autoencoder():
    model = build_autoencoder(VAEConfig(width=8, channels=4))
    image = jnp.zeros((1, 32, 32, 3))
    params = jax.jit(lambda key: model.init(key, image, key[None])["params"])(jax.random.key(0))
    params = jax.tree.map(np.asarray, nn.meta.unbox(params))
    return FrozenAutoencoder(model, params, "random")


def test_batches_are_a_power_of_two_per_device_and_bounded_in_pixels(autoencoder):
    encoder, devices = LatentEncoder(autoencoder), jax.local_device_count()
    assert encoder.batch_size((1024, 1024)) == devices
    assert encoder.batch_size((512, 512)) == 4 * devices
    assert encoder.batch_size((704, 384)) == 2 * devices
    assert encoder.batch_size((32, 32)) == 64 * devices
    assert encoder.batch_size((2048, 2048)) == devices


def test_latents_are_those_of_the_autoencoder_in_float16(autoencoder):
    encoder = LatentEncoder(autoencoder)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 48, 3), np.uint8)
    latents = np.asarray(encoder(images))
    assert latents.dtype == np.float16
    assert latents.shape[1:] == encoder.latent_shape((32, 48))
    exact = autoencoder.encode_images(images)
    # One rounding to float16, of sums that another batch size may order otherwise.
    scale = np.sqrt(np.mean(exact**2))
    bound = np.abs(exact) * 2.0**-11 + scale * rounding(terms=8 * 9 * 9, sums=6)
    assert (np.abs(latents.astype(np.float32) - exact) <= bound + 2.0**-25).all()
