"""Classifier-free guidance (Ho and Salimans 2022, https://arxiv.org/abs/2207.12598).

The network runs once on a batch of 2B: the first half sees the prompts, the second half the empty
prompt, in that order everywhere: `[conditional, unconditional]`.

```
conditions = concatenate_conditions(of_the_prompts, of_the_empty_prompt)
model_fn = guided(lambda x_t, time: model.apply(params, x_t, time, **conditions), scale)
sample(model_fn, process, noise, steps=50, sampler="ddim")
```
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

ModelFn = Callable[[Float[Array, "B ..."], Float[Array, "B"]], Float[Array, "B ..."]]
"""From x_t and `Process.model_time(t)` to the prediction."""

Conditions = TypeVar("Conditions")


def concatenate_conditions(conditional: Conditions, unconditional: Conditions) -> Conditions:
    """Both conditions as one batch of 2B in the order that `guided` expects.

    Args:
      conditional: pytree of arrays [B, ...], of the prompts.
      unconditional: the same pytree for the empty prompt, of arrays [B, ...] or [1, ...].

    Returns:
      The pytree with arrays [2B, ...]: first `conditional`, then `unconditional`.
    """

    def concatenate(prompt: Array, empty: Array) -> Array:
        return jnp.concatenate([prompt, jnp.broadcast_to(empty, prompt.shape)])

    return jax.tree.map(concatenate, conditional, unconditional)


def guided(model_fn: ModelFn, scale: Float[Array, ""] | Float[Array, "B"] | float) -> ModelFn:
    """A model of B samples that runs `model_fn` on 2B and extrapolates.

    Args:
      model_fn: returns predictions [2B, ...] in the order `[conditional, unconditional]`.
      scale: one for all samples or one each. 1 is exactly the conditional prediction, 0 the
        unconditional one. A traced scale does not recompile.

    Every prediction space gives the same guidance, as all are affine in each other at fixed x_t.
    """

    def guided_model(x_t: Float[Array, "B ..."], time: Float[Array, "B"]) -> Float[Array, "B ..."]:
        both = model_fn(jnp.concatenate([x_t, x_t]), jnp.concatenate([time, time]))
        conditional, unconditional = jnp.split(both.astype(jnp.float32), 2)
        per_sample = jnp.reshape(jnp.asarray(scale, jnp.float32), (-1,) + (1,) * (x_t.ndim - 1))
        return conditional + (per_sample - 1) * (conditional - unconditional)

    return guided_model
