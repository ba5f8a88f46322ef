"""Step cache: reuse of slowly changing activations between sampling steps.

A full evaluation caches the refined text and the residual that the middle blocks add to the image
tokens. The next evaluations run only the first and the last block, on their own tokens and time,
and reuse the rest: neither the refiners nor the middle blocks run. That residuals change slowly
between steps is the observation of DeepCache (https://arxiv.org/abs/2312.00858), Delta-DiT
(https://arxiv.org/abs/2406.01125) and FORA (https://arxiv.org/abs/2407.01425).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_EDGE = 1  # blocks at each end of the stack that always run


class CachedActivations(NamedTuple):
    """Activations of a full evaluation that later evaluations reuse."""

    context: Float[Array, "B S D"]
    """Refined tokens of all streams."""
    pooled: Float[Array, "B D"] | None
    """Text part of the backbone's condition, if it has one."""
    change: Float[Array, "B N D"]
    """Residual of the middle blocks on the image tokens."""


def run_blocks(
    block: Callable[[Any, Float[Array, "B N D"]], Float[Array, "B N D"]],
    layers: Any,
    x: Float[Array, "B N D"],
    change: Float[Array, "B N D"] | None,
    unroll: int,
) -> tuple[Float[Array, "B N D"], Float[Array, "B N D"]]:
    """Run all blocks, or only the outer ones around a cached residual.

    Args:
      block: function from one block's parameters and tokens to tokens.
      layers: the parameters of all blocks, stacked on axis 0.
      x: the tokens before the first block.
      change: cached residual of the middle blocks; None runs them.
      unroll: blocks per iteration of the loop.

    Returns:
      The tokens after the last block, and the residual of the middle blocks.
    """
    depth = len(jax.tree.leaves(layers)[0])
    first = min(_EDGE, depth)
    last = max(depth - _EDGE, first)

    def run(x: Array, start: int, stop: int) -> Array:
        def one(x: Array, i: Array) -> tuple[Array, None]:
            # Indexed per block, because a slice of the stack would copy its weights.
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
