"""Small image autoencoder like the paper's: 8x downsampling and 16 channels (section 5.1).

It splits the image into patches first and convolves at that lower resolution, which makes it cheap
enough to train on a CPU. `lidit_jax.autoencoders.kl` is the large one.
"""

import math

import einops
import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from lidit_jax.autoencoders.posterior import Posterior
from lidit_jax.config.schema import VAEConfig
from lidit_jax.models.convolution import Convolution
from lidit_jax.models.layers import rms_norm


class ResBlock(nn.Module):
    """Residual block of two 3x3 convolutions, normalized per pixel."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Return features of the same shape."""
        h = x
        for i in range(2):
            h = nn.silu(rms_norm(jnp.float32, name=f"norm_{i}")(h))
            h = Convolution(x.shape[-1], self.dtype, name=f"conv_{i}")(h)
        return x + h


class Encoder(nn.Module):
    """Encoder from an image to the mean and log-variance of its latent."""

    config: VAEConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w moments"]:
        """Return the mean and log-variance of the latent for an image in [-1, 1]."""
        config, dtype = self.config, self.dtype
        x = einops.rearrange(
            image, "b (h p) (w q) c -> b h w (p q c)", p=config.patch, q=config.patch
        )
        x = Convolution(config.width, dtype, name="conv_in")(x)
        for stage in range(_strided_stages(config) + 1):
            if stage:
                channels = config.width * 2**stage
                x = Convolution(channels, dtype, strides=2, name=f"down_{stage}")(x)
            for i in range(config.blocks):
                x = ResBlock(dtype, name=f"stage_{stage}_block_{i}")(x)
        x = nn.silu(rms_norm(jnp.float32, name="norm_out")(x))
        out = Convolution(2 * config.channels, dtype, ("embed", None), size=1, name="conv_out")
        return out(x)


class Decoder(nn.Module):
    """Decoder from a latent to an image."""

    config: VAEConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, latent: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Return the image in [-1, 1], not clipped."""
        config, dtype = self.config, self.dtype
        stages = _strided_stages(config)
        x = Convolution(config.width * 2**stages, dtype, name="conv_in")(latent)
        for stage in reversed(range(stages + 1)):
            for i in range(config.blocks):
                x = ResBlock(dtype, name=f"stage_{stage}_block_{i}")(x)
            if stage:
                channels = 4 * config.width * 2 ** (stage - 1)
                x = Convolution(channels, dtype, name=f"up_{stage}")(x)
                x = _depth_to_space(x, 2)
        x = nn.silu(rms_norm(jnp.float32, name="norm_out")(x))
        x = Convolution(3 * config.patch**2, dtype, ("embed", None), name="conv_out")(x)
        return _depth_to_space(x, config.patch)


class Autoencoder(nn.Module):
    """Autoencoder of images and latents [B, H/8, W/8, C]; `encode` gives the posterior's mean."""

    config: VAEConfig
    dtype: DTypeLike = jnp.float32
    """Compute type of the convolutions; norms, parameters and results are float32."""

    @property
    def channels(self) -> int:
        """Latent channels C."""
        return self.config.channels

    @property
    def downsample(self) -> int:
        """Image pixels per latent pixel, along each side."""
        return self.config.downsample

    def setup(self) -> None:
        """Create encoder and decoder."""
        self.encoder = Encoder(self.config, self.dtype)
        self.decoder = Decoder(self.config, self.dtype)

    def posterior(self, image: Float[Array, "B H W 3"]) -> Posterior:
        """Return the posterior of the latent for an image in [-1, 1]."""
        return Posterior.from_moments(self.encoder(image))

    def encode(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Return the mean latent of an image in [-1, 1]; H and W are multiples of `downsample`."""
        return self.posterior(image).mean

    def decode(self, latent: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Decode a latent into an image in [-1, 1], not clipped."""
        return self.decoder(latent).astype(jnp.float32)

    def __call__(
        self, image: Float[Array, "B H W 3"], keys: Key[Array, " B"]
    ) -> tuple[Float[Array, "B H W 3"], Float[Array, " B"]]:
        """Return the reconstruction of a sampled latent, and the KL to N(0, I) per latent value."""
        posterior = self.posterior(image)
        return self.decode(posterior.sample(keys)), posterior.kl()


def _strided_stages(config: VAEConfig) -> int:
    return round(math.log2(config.downsample / config.patch))


def _depth_to_space(x: Float[Array, "B h w Q"], factor: int) -> Float[Array, "B H W C"]:
    return einops.rearrange(x, "b h w (p q c) -> b (h p) (w q) c", p=factor, q=factor)
