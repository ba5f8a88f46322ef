"""Step cache: network evaluations that reuse activations of the last full evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lidit_jax.diffusion.guidance import Pair
from lidit_jax.diffusion.parameterization import Images

Activations = Any
"""Activations of a full evaluation that later evaluations reuse: a pytree."""


class CachedModel(NamedTuple):
    """Network, or guidance pair, computed in full or from cached activations."""

    compute: Callable[
        [Float[Array, "B ..."], Float[Array, " B"]], tuple[Images | Pair, Activations]
    ]
    """Full evaluation: x_t and model time to the output and the activations to cache."""
    reuse: Callable[[Float[Array, "B ..."], Float[Array, " B"], Activations], Images | Pair]
    """Cached evaluation: approximately the same output, from cached activations."""

    def empty_cache(self, x_t: Float[Array, "B ..."], time: Float[Array, " B"]) -> Activations:
        """Return zeros in the shapes of the activations, without running the network."""
        _, cached = jax.eval_shape(self.compute, x_t, time)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), cached)

    def evaluate(
        self,
        x_t: Float[Array, "B ..."],
        time: Float[Array, " B"],
        fresh: Bool[Array, ""],
        cached: Activations,
    ) -> tuple[Images | Pair, Activations]:
        """Evaluate in full or from the cache, chosen at run time inside a compiled loop.

        Args:
          x_t: samples.
          time: the model time.
          fresh: whether to compute in full.
          cached: activations of the last full evaluation.

        Returns:
          The output, and the activations of the most recent full evaluation.
        """

        def reuse(x_t: Array, time: Array) -> tuple[Images | Pair, Activations]:
            return self.reuse(x_t, time, cached), cached

        return jax.lax.cond(fresh, self.compute, reuse, x_t, time)
