"""Noise from seeds, bitwise identical per image for every batch and mesh."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, UInt32

from lidit_jax.errors import LiditError

StepNoise = Callable[[Int[Array, ""]], Float[Array, "B ..."]]
"""Function from the index of an evaluation to the fresh noise added after it."""


def initial_noise(
    seeds: Sequence[int] | Integer[Array, " B"], shape: tuple[int, ...]
) -> Float[Array, "B ..."]:
    """Draw standard normal noise, float32, from one seed per image.

    The noise of an image depends on its seed alone: it is bitwise identical in any batch and on
    any mesh.

    Args:
      seeds: integers from 0 to 2**32 - 1, one per image.
      shape: shape of one image (or latent).

    Raises:
      LiditError: when a seed is out of range.
    """
    seeds = checked_seeds(seeds)
    return jax.vmap(lambda seed: jax.random.normal(jax.random.key(seed), shape, jnp.float32))(seeds)


def step_noise(seeds: UInt32[Array, " B"], shape: tuple[int, ...]) -> StepNoise:
    """Return fresh noise for stochastic samplers, independent of the initial noise of the seeds.

    Args:
      seeds: from `checked_seeds`.
      shape: shape of one image (or latent).
    """

    def draw(index: Int[Array, ""]) -> Float[Array, "B ..."]:
        def of_seed(seed: UInt32[Array, ""]) -> Array:
            key = jax.random.fold_in(jax.random.key(seed), index + 1)
            return jax.random.normal(key, shape, jnp.float32)

        return jax.vmap(of_seed)(seeds)

    return draw


def interpolate_noise(
    noise: Float[Array, "B ..."], other: Float[Array, "B ..."], amount: Float[Array, " B"] | float
) -> Float[Array, "B ..."]:
    """Interpolate between two noises by rotation, which keeps them standard normal.

    0 gives the first and 1 the second. A weighted mean would have less than unit variance.
    """
    amount = jnp.reshape(jnp.asarray(amount, noise.dtype), (-1,) + (1,) * (noise.ndim - 1))
    angle = jnp.pi / 2 * amount
    return jnp.cos(angle) * noise + jnp.sin(angle) * other


def checked_seeds(seeds: Sequence[int] | Integer[Array, " B"]) -> UInt32[Array, " B"]:
    """Return the seeds as uint32. Raises `LiditError` when one is out of range."""
    if isinstance(seeds, np.ndarray):
        seeds = seeds.tolist()  # NumPy would wrap a seed out of range
    try:
        return jnp.asarray(seeds, jnp.uint32)
    except OverflowError as error:
        raise LiditError(f"seeds {seeds}: each must be from 0 to {2**32 - 1}") from error
