"""Posterior of an autoencoder's encoder: one Gaussian per latent value (arXiv 1312.6114)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

# As in diffusers' DiagonalGaussianDistribution, to keep exp() in a useful range.
_LOG_VARIANCE_RANGE = (-30.0, 20.0)


class Posterior(NamedTuple):
    """Independent Gaussians, one per latent value."""

    mean: Float[Array, "B h w C"]
    """The mean, which is also the mode and the deterministic latent."""
    log_variance: Float[Array, "B h w C"]

    @classmethod
    def from_moments(cls, moments: Float[Array, "B h w moments"]) -> Posterior:
        """Split an encoder's output along the channels into means and log-variances."""
        mean, log_variance = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
        return cls(mean, jnp.clip(log_variance, *_LOG_VARIANCE_RANGE))

    def sample(self, keys: Key[Array, " B"]) -> Float[Array, "B h w C"]:
        """Sample a latent, with one random key per image."""
        noise = jax.vmap(lambda key: jax.random.normal(key, self.mean.shape[1:]))(keys)
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise

    def kl(self) -> Float[Array, " B"]:
        """Return the KL divergence to N(0, I) in nats, averaged over each image's latent values."""
        variance = jnp.exp(self.log_variance)
        kl = 0.5 * (self.mean**2 + variance - 1.0 - self.log_variance)
        return jnp.mean(kl, axis=(1, 2, 3))
