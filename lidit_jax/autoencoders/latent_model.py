"""Interface shared by all image autoencoders."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


@runtime_checkable
class LatentModel(Protocol):
    """Interface that `FrozenAutoencoder` requires of a network, which is a linen module."""

    @property
    def channels(self) -> int:
        """Latent channels C."""
        ...

    @property
    def downsample(self) -> int:
        """Image pixels per latent pixel, along each side."""
        ...

    @property
    def dtype(self) -> DTypeLike:
        """Type of the computation."""
        ...

    @property
    def init(self) -> Callable[..., Mapping[str, object]]:
        """The linen module's `init`."""
        ...

    @property
    def apply(self) -> Callable[..., Any]:
        """The linen module's `apply`; it returns the result of the method passed to it."""
        ...

    @property
    def clone(self) -> Callable[..., Self]:
        """The linen module's `clone`."""
        ...

    def encode(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Encode an image in [-1, 1] into the deterministic latent for the diffusion model."""
        ...

    def decode(self, latent: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Decode a latent into an image in [-1, 1], not clipped."""
        ...


def boxed_shapes(model: LatentModel) -> Any:
    """Return the shapes and logical axis names of all parameters, without allocating them."""
    side = 2 * model.downsample
    init = functools.partial(model.init, method=lambda m, image: m.decode(m.encode(image)))
    return jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, side, side, 3)))["params"]
