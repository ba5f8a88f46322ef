"""A small image autoencoder of the paper's kind: 8x down, 16 channels (section 5.1).

It cuts the image into patches first and convolves at that lower resolution, which makes it cheap
enough to train on a CPU. `source="pixels"` in the configuration means none at all: the latent is
the image.
"""

import math

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from lidit_jax.config import VAEConfig
from lidit_jax.models.layers import rms_norm


class ResBlock(nn.Module):
    """Two 3x3 convolutions around a residual, the norms per pixel."""

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        """Keeps the shape."""
        h = x
        for i in range(2):
            h = nn.silu(rms_norm(jnp.float32, name=f"norm_{i}")(h))
            h = nn.Conv(x.shape[-1], (3, 3), name=f"conv_{i}")(h)
        return x + h


class Encoder(nn.Module):
    """Image to the mean and log-variance of its latent."""

    config: VAEConfig

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w 2C"]:
        """Args: image in [-1, 1]."""
        config = self.config
        x = einops.rearrange(
            image, "b (h p) (w q) c -> b h w (p q c)", p=config.patch, q=config.patch
        )
        x = nn.Conv(config.width, (3, 3), name="conv_in")(x)
        for stage in range(_strided_stages(config) + 1):
            if stage:
                channels = config.width * 2**stage
                x = nn.Conv(channels, (3, 3), strides=2, name=f"down_{stage}")(x)
            for i in range(config.blocks):
                x = ResBlock(name=f"stage_{stage}_block_{i}")(x)
        x = nn.silu(rms_norm(jnp.float32, name="norm_out")(x))
        return nn.Conv(2 * config.channels, (1, 1), name="conv_out")(x)


class Decoder(nn.Module):
    """Latent to image."""

    config: VAEConfig

    @nn.compact
    def __call__(self, latent: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Returns an image in [-1, 1] (not clipped)."""
        config = self.config
        stages = _strided_stages(config)
        x = nn.Conv(config.width * 2**stages, (3, 3), name="conv_in")(latent)
        for stage in reversed(range(stages + 1)):
            for i in range(config.blocks):
                x = ResBlock(name=f"stage_{stage}_block_{i}")(x)
            if stage:
                x = nn.Conv(4 * config.width * 2 ** (stage - 1), (3, 3), name=f"up_{stage}")(x)
                x = _depth_to_space(x, 2)
        x = nn.silu(rms_norm(jnp.float32, name="norm_out")(x))
        x = nn.Conv(3 * config.patch**2, (3, 3), name="conv_out")(x)
        return _depth_to_space(x, config.patch)


class Autoencoder(nn.Module):
    """Image <-> latent [B, H/8, W/8, C]; the deterministic latent is the posterior's mean."""

    config: VAEConfig

    def setup(self) -> None:
        """Names the two halves."""
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def encode(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """The mean latent of an image in [-1, 1]; H and W are multiples of the downsampling."""
        mean, _ = jnp.split(self.encoder(image), 2, axis=-1)
        return mean

    def decode(self, latent: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """An image in [-1, 1] (not clipped)."""
        return self.decoder(latent)

    def __call__(
        self, image: Float[Array, "B H W 3"], key: PRNGKeyArray
    ) -> tuple[Float[Array, "B H W 3"], Float[Array, " B"]]:
        """Reconstruction from a sampled latent, and the KL to N(0, I) per latent value."""
        mean, log_variance = jnp.split(self.encoder(image), 2, axis=-1)
        log_variance = jnp.clip(log_variance, -20.0, 10.0)
        noise = jax.random.normal(key, mean.shape)
        kl = 0.5 * (mean**2 + jnp.exp(log_variance) - 1.0 - log_variance)
        sample = mean + jnp.exp(0.5 * log_variance) * noise
        return self.decoder(sample), jnp.mean(kl, axis=(1, 2, 3))


def _strided_stages(config: VAEConfig) -> int:
    return round(math.log2(config.downsample / config.patch))


def _depth_to_space(x: Float[Array, "B h w Q"], factor: int) -> Float[Array, "B H W C"]:
    return einops.rearrange(x, "b h w (p q c) -> b (h p) (w q) c", p=factor, q=factor)
