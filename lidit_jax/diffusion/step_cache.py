"""Networks of which an evaluation may reuse parts of the last one that was computed in full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from lidit_jax.diffusion.guidance import Pair
from lidit_jax.diffusion.parameterization import Images

Memory = Any
"""What a computed evaluation leaves for the next ones: a pytree."""


class Reusing(NamedTuple):
    """A network, or a pair of predictions, in a full and in a cheaper form."""

    compute: Callable[[Float[Array, "B ..."], Float[Array, "B"]], tuple[Images | Pair, Memory]]
    """From x_t and the model's time to the output and what to remember."""
    reuse: Callable[[Float[Array, "B ..."], Float[Array, "B"], Memory], Images | Pair]
    """The same from what is remembered."""

    def blank(self, x_t: Float[Array, "B ..."], time: Float[Array, "B"]) -> Memory:
        """A memory of the right shapes, to begin a loop with; computes nothing."""
        _, memory = jax.eval_shape(self.compute, x_t, time)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), memory)

    def evaluate(
        self,
        x_t: Float[Array, "B ..."],
        time: Float[Array, "B"],
        fresh: Bool[Array, ""],
        memory: Memory,
    ) -> tuple[Images | Pair, Memory]:
        """One evaluation in a compiled loop, which runs only the form that is asked for.

        Args:
          x_t: samples.
          time: as the network receives it.
          fresh: whether to compute in full.
          memory: of the last full evaluation.

        Returns:
          The output, and the memory of what is now the last full evaluation.
        """

        def reuse(x_t: Array, time: Array) -> tuple[Images | Pair, Memory]:
            return self.reuse(x_t, time, memory), memory

        return jax.lax.cond(fresh, self.compute, reuse, x_t, time)
