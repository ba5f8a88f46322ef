"""The network on the prompts of one call, in as few calls of it as guidance takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lidit_jax.diffusion.guidance import (
    ModelFn,
    Pair,
    PairFn,
    away_from,
    concatenate_conditions,
    in_one_batch,
)
from lidit_jax.diffusion.step_cache import Memory, Reusing
from lidit_jax.encoders.conditions import TextConditions
from lidit_jax.models.lidit import LIDiT


class Blend(NamedTuple):
    """Second prompts."""

    conditions: TextConditions
    weight: Float[np.ndarray, "B"]


class Weaker(NamedTuple):
    """A weaker network to move away from, instead of from the empty prompt."""

    model: LIDiT
    params: Any


@dataclass(frozen=True)
class PromptedNetwork:
    """Who is asked, and about what."""

    model: LIDiT
    params: Any
    crop: tuple[int, ...]
    """Number of instruction tokens of each stream."""
    conditions: TextConditions
    null: TextConditions | None
    """Of the prompts to leave, batch 1 or B; None without guidance."""
    blend: Blend | None = None
    weaker: Weaker | None = None
    """With guidance; the conditions to leave and the blend are then not used."""

    def whole(self) -> ModelFn | PairFn:
        """Every evaluation in full."""
        return self._asked(lambda network: network)

    def reusing(self) -> Reusing:
        """Both forms of an evaluation (`lidit_jax.models.step_cache`)."""

        def compute(x_t: Array, time: Array) -> tuple[Array | Pair, Memory]:
            memory = []

            def keeping(network: Callable) -> ModelFn:
                def model_fn(x_t: Array, time: Array) -> Array:
                    prediction, reusable = network(x_t, time, keep=True)
                    memory.append(reusable)
                    return prediction

                return model_fn

            return self._asked(keeping)(x_t, time), tuple(memory)

        def reuse(x_t: Array, time: Array, memory: Memory) -> Array | Pair:
            parts = iter(memory)
            reusing = lambda network: functools.partial(network, reuse=next(parts))  # noqa: E731
            return self._asked(reusing)(x_t, time)

        return Reusing(compute, reuse)

    def _asked(self, form: Callable[[Callable], ModelFn]) -> ModelFn | PairFn:
        """One or two networks on their conditions, each in the same form."""

        def bind(model: LIDiT, params: Any, *conditions: TextConditions) -> ModelFn:
            joined = concatenate_conditions(*conditions)
            return form(
                functools.partial(
                    model.apply,
                    {"params": params},
                    features=joined.features,
                    masks=joined.masks,
                    crop=self.crop,
                )
            )

        prompts = (self.conditions,)
        if self.blend is not None:
            prompts += (self.blend.conditions,)
        if self.null is None:
            network = bind(self.model, self.params, *prompts)
            if self.blend is None:
                return network
            both = in_one_batch(network)
            return lambda x_t, time: _mean(*both(x_t, time), self.blend.weight)
        if self.weaker is not None:
            network = bind(self.model, self.params, self.conditions)
            return away_from(network, bind(*self.weaker, self.conditions))
        network = bind(self.model, self.params, *prompts, self.null)
        return in_one_batch(network, self.blend and self.blend.weight)


def _mean(first: Array, second: Array, weight: Array) -> Array:
    weight = jnp.reshape(weight, (-1,) + (1,) * (first.ndim - 1))
    return (1 - weight) * first + weight * second
