"""Step cache: an evaluation of the network reuses activations of the last one computed in full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lidit_jax.diffusion.guidance import Pair
from lidit_jax.diffusion.parameterization import Images

Activations = Any
"""What an evaluation computed in full leaves for the next ones: a pytree."""


class CachedModel(NamedTuple):
    """A network, or a pair of predictions, in full and from cached activations."""

    compute: Callable[
        [Float[Array, "B ..."], Float[Array, " B"]], tuple[Images | Pair, Activations]
    ]
    """From x_t and the model's time to the output and the activations to cache."""
    reuse: Callable[[Float[Array, "B ..."], Float[Array, " B"], Activations], Images | Pair]
    """The same output, nearly, from cached activations."""

    def empty_cache(self, x_t: Float[Array, "B ..."], time: Float[Array, " B"]) -> Activations:
        """Zeros in the shapes of the activations, to begin a loop with; computes nothing."""
        _, cached = jax.eval_shape(self.compute, x_t, time)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), cached)

    def evaluate(
        self,
        x_t: Float[Array, "B ..."],
        time: Float[Array, " B"],
        fresh: Bool[Array, ""],
        cached: Activations,
    ) -> tuple[Images | Pair, Activations]:
        """One evaluation in a compiled loop, which runs only the form that is asked for.

        Args:
          x_t: samples.
          time: as the network receives it.
          fresh: whether to compute in full.
          cached: activations of the last full evaluation.

        Returns:
          The output, and the activations of what is now the last full evaluation.
        """

        def reuse(x_t: Array, time: Array) -> tuple[Images | Pair, Activations]:
            return self.reuse(x_t, time, cached), cached

        return jax.lax.cond(fresh, self.compute, reuse, x_t, time)
