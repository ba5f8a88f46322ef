"""What an autoencoder's encoder returns: a Gaussian for each latent value (arXiv 1312.6114)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

# As in diffusers' DiagonalGaussianDistribution: beyond it exp() says nothing.
_LOG_VARIANCE_RANGE = (-30.0, 20.0)


class Posterior(NamedTuple):
    """Independent Gaussians, of each latent value."""

    mean: Float[Array, "B h w C"]
    """Also the mode: the deterministic latent."""
    log_variance: Float[Array, "B h w C"]

    @classmethod
    def from_moments(cls, moments: Float[Array, "B h w moments"]) -> Posterior:
        """From means and log-variances behind each other, as encoders return them."""
        mean, log_variance = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
        return cls(mean, jnp.clip(log_variance, *_LOG_VARIANCE_RANGE))

    def sample(self, keys: Key[Array, " B"]) -> Float[Array, "B h w C"]:
        """A latent drawn with one key an image."""
        noise = jax.vmap(lambda key: jax.random.normal(key, self.mean.shape[1:]))(keys)
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise

    def kl(self) -> Float[Array, " B"]:
        """KL divergence to N(0, I) in nats, the mean over the latent values of each image."""
        variance = jnp.exp(self.log_variance)
        kl = 0.5 * (self.mean**2 + variance - 1.0 - self.log_variance)
        return jnp.mean(kl, axis=(1, 2, 3))
