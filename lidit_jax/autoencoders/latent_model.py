"""What all image autoencoders have in common."""

from __future__ import annotations

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class LatentModel(Protocol):
    """What `FrozenAutoencoder` needs of a network: a linen module with these fields and methods."""

    channels: int
    downsample: int
    dtype: jnp.dtype

    def encode(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """The deterministic latent, as the diffusion model sees it."""

    def decode(self, latent: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Its image in [-1, 1] (not clipped)."""


def boxed_shapes(model: LatentModel) -> Any:
    """Shapes of all parameters, with the logical names of their axes; nothing is allocated."""
    side = 2 * model.downsample
    init = functools.partial(model.init, method=lambda m, image: m.decode(m.encode(image)))
    return jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, side, side, 3)))["params"]
