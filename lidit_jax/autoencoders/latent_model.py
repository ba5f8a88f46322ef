"""What all image autoencoders have in common."""

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
    """What `FrozenAutoencoder` needs of a network: a linen module with these fields and methods."""

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
        """Of every linen module."""
        ...

    @property
    def apply(self) -> Callable[..., Any]:
        """Of every linen module; it returns what the method does that it is given."""
        ...

    @property
    def clone(self) -> Callable[..., Self]:
        """Of every linen module."""
        ...

    def encode(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """The deterministic latent, as the diffusion model sees it."""
        ...

    def decode(self, latent: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Its image in [-1, 1] (not clipped)."""
        ...


def boxed_shapes(model: LatentModel) -> Any:
    """Shapes of all parameters, with the logical names of their axes; nothing is allocated."""
    side = 2 * model.downsample
    init = functools.partial(model.init, method=lambda m, image: m.decode(m.encode(image)))
    return jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, side, side, 3)))["params"]
