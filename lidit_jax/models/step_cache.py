"""Step cache: near evaluations of the network share what changes little between them.

A computed evaluation hands on the refined text and what the middle blocks added to the image's
tokens. The evaluations after it run the first and the last block on their own tokens, under their
own time, and take the rest from there: neither the refiners nor the middle blocks run. That what
blocks add changes slowly from step to step is the observation of DeepCache
(https://arxiv.org/abs/2312.00858), Delta-DiT (https://arxiv.org/abs/2406.01125) and FORA
(https://arxiv.org/abs/2407.01425).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_EDGE = 1  # blocks at each end of the stack that always run


class CachedActivations(NamedTuple):
    """What an evaluation computed in full leaves for the next ones."""

    context: Float[Array, "B S D"]
    """The refined tokens of all streams."""
    pooled: Float[Array, "B D"]
    """The streams' part of the backbone's condition."""
    change: Float[Array, "B N D"]
    """What the middle blocks added to the image's tokens."""


def run_blocks(
    block: Callable[[Any, Float[Array, "B N D"]], Float[Array, "B N D"]],
    layers: Any,
    x: Float[Array, "B N D"],
    change: Float[Array, "B N D"] | None,
    unroll: int,
) -> tuple[Float[Array, "B N D"], Float[Array, "B N D"]]:
    """Runs all blocks, or the outer ones around a known change.

    Args:
      block: from the parameters of one block and tokens to tokens.
      layers: the parameters of all blocks, stacked on axis 0.
      x: the tokens before the first block.
      change: of the middle blocks; None runs them.
      unroll: blocks in each iteration of the loop.

    Returns:
      The tokens after the last block, and the change.
    """
    depth = len(jax.tree.leaves(layers)[0])
    first = min(_EDGE, depth)
    last = max(depth - _EDGE, first)

    def run(x: Array, start: int, stop: int) -> Array:
        def one(x: Array, i: Array) -> tuple[Array, None]:
            # Indexed in place: a slice of the stack would be a copy of its weights.
            return block(jax.tree.map(lambda stack: stack[i], layers), x), None

        length = max(stop - start, 1)
        return jax.lax.scan(one, x, jnp.arange(start, stop), unroll=min(unroll, length))[0]

    x = run(x, 0, first)
    if change is None:
        before, x = x, run(x, first, last)
        change = x - before
    else:
        x = x + change
    return run(x, last, depth), change
