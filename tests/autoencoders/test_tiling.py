"""Tiled decoding: the blend itself, what it leaves unchanged, and how much memory it saves."""

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lidit_jax.autoencoders.frozen import FrozenAutoencoder
from lidit_jax.autoencoders.kl import AutoencoderKL
from lidit_jax.autoencoders.patch import Autoencoder
from lidit_jax.autoencoders.tiling import tile_axis, tiled_decode
from lidit_jax.config.schema import VAEConfig
from lidit_jax.errors import LiditError
from tests.quick import random_parameters

LOCAL = Autoencoder(VAEConfig(width=8, blocks=1, channels=4, patch=8))
"""Convolutions and norms of single pixels: each image pixel depends on latents near it only."""
REACH = 4
"""How far, in latent pixels: as many 3x3 convolutions."""
KL = AutoencoderKL(stages=(8, 16), channels=4, blocks=1, norm_groups=4)


def keys(count=1):
    return jax.random.split(jax.random.key(0), count)


def latents(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=(*shape, 4)), jnp.float32)


@pytest.fixture(scope="module")
def local():
    return random_parameters(LOCAL.init, jnp.zeros((1, 16, 16, 3)), keys())


@pytest.fixture(scope="module")
def kl():
    return random_parameters(KL.init, jnp.zeros((1, 16, 16, 3)), keys())


@pytest.mark.parametrize("length", [5, 16, 17, 28, 40, 41])
def test_tiles_cover_a_side_and_their_weights_sum_to_one(length):
    starts, weights = tile_axis(length, tile=16, scale=3)
    size = weights.shape[1] // 3
    assert (starts[0], starts[-1] + size) == (0, length)
    assert np.all(starts[1:] - starts[:-1] <= size * 3 // 4), "neighbors overlap by a quarter"
    total = np.zeros(length * 3)
    for start, weight in zip(starts, weights, strict=True):
        total[start * 3 : (start + size) * 3] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_two_tiles_blend_linearly():
    starts, weights = tile_axis(28, tile=16, scale=1)
    np.testing.assert_array_equal(starts, [0, 12])
    ramp = (np.arange(4) + 0.5) / 4
    np.testing.assert_allclose(weights[1, :4], ramp, atol=1e-6)
    np.testing.assert_allclose(weights[0, -4:], 1 - ramp, atol=1e-6)


def test_away_from_seams_a_local_decoder_gives_the_plain_image(local):
    """Within 1e-5: where a tile knows all latents that a pixel depends on, nothing changes."""
    decode = lambda z: LOCAL.apply({"params": local}, z, method="decode")  # noqa: E731
    z, tile = latents(2, 28, 20), 16
    plain = jax.jit(decode)(z)
    tiled = jax.jit(lambda z: tiled_decode(decode, z, tile, 8))(z)
    inside = np.ones((28, 20), bool)
    for axis, length in enumerate(inside.shape):
        starts, _ = tile_axis(length, tile, 1)
        for seam in [*starts[1:], *(starts[:-1] + tile - REACH)]:
            near = np.isin(np.arange(length), seam + np.arange(REACH))
            inside &= ~(near[:, None] if axis == 0 else near[None, :])
    assert 0.4 < inside.mean() < 0.6
    inside = np.kron(inside, np.ones((8, 8), bool))
    np.testing.assert_allclose(tiled[:, inside], plain[:, inside], atol=1e-5)
    assert np.abs(tiled - plain).max() > 1e-2, "near the seams it does"


def test_tiles_are_those_that_the_decoder_gives_alone(kl):
    """AutoencoderKL sees each tile by itself; the blend of them, written down once more."""
    decode = jax.jit(lambda z: KL.apply({"params": kl}, z, method="decode"))
    z, expected = latents(1, 14, 8), np.zeros((1, 28, 16, 3))
    starts, weights = tile_axis(14, 8, 2)
    for start, weight in zip(starts, weights, strict=True):
        image = decode(z[:, start : start + 8])
        expected[:, 2 * start : 2 * (start + 8)] += weight[:, None, None] * image
    np.testing.assert_allclose(tiled_decode(decode, z, 8, 2), expected, atol=1e-5)


def test_it_is_no_further_from_the_plain_image_than_diffusers():
    """Their tiles at the lower and right border are slivers, with other norms' statistics."""
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=32,
        use_post_quant_conv=False,
    ).requires_grad_(False)

    def decode(z):
        image = theirs.decode(torch.from_numpy(np.array(z)).permute(0, 3, 1, 2)).sample
        return image.permute(0, 2, 3, 1).numpy()

    z = np.asarray(latents(1, 42, 42))
    plain = decode(z)
    theirs.enable_tiling()
    diffusers_error = np.abs(decode(z) - plain).mean()
    theirs.disable_tiling()
    ours = tiled_decode(
        lambda z: jax.pure_callback(decode, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32), z),
        jnp.asarray(z),
        16,
        2,
    )
    assert 0 < np.abs(ours - plain).mean() <= diffusers_error


def test_a_frozen_autoencoder_tiles_only_what_is_larger_than_a_tile(kl):
    plain, tiled = (jax.jit(FrozenAutoencoder(KL, kl, "x", tile).decode) for tile in (0, 32))
    small, large = latents(1, 16, 12), latents(1, 24, 12)
    np.testing.assert_array_equal(tiled(kl, small), plain(kl, small))
    assert tiled(kl, large).shape == (1, 48, 24, 3)
    assert np.abs(tiled(kl, large) - plain(kl, large)).max() > 1e-3


@pytest.mark.parametrize("tile", [6, 33])
def test_a_tile_that_does_not_fit_is_refused(kl, tile):
    with pytest.raises(LiditError, match=f"config.vae.tile={tile} must be a multiple of 2 "):
        FrozenAutoencoder(KL, kl, "x", tile=tile)


def test_memory_does_not_grow_with_the_image(kl):
    """As the compiler plans it: the working memory of a tile, the same for 256 and 512 pixels."""

    def planned(side: int, tile: int) -> int:
        autoencoder = FrozenAutoencoder(KL, kl, "x", tile)
        latent = jax.ShapeDtypeStruct((1, side // 2, side // 2, 4), jnp.float32)
        memory = jax.jit(autoencoder.decode).lower(kl, latent).compile().memory_analysis()
        return memory.temp_size_in_bytes

    image = 3 * 4 * 512**2  # the image itself, in float32, may be held twice
    assert planned(512, tile=64) < planned(256, tile=64) + 2 * image
    assert planned(512, tile=64) < planned(512, tile=0) / 4
