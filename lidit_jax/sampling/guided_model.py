"""Network with text conditions and guidance, in the form that samplers call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from lidit_jax.diffusion.guidance import (
    ModelFn,
    Pair,
    PairFn,
    autoguidance,
    concatenate_conditions,
    in_one_batch,
)
from lidit_jax.diffusion.step_cache import Activations, CachedModel
from lidit_jax.encoders.conditions import TextConditions
from lidit_jax.models.lidit import LIDiT
from lidit_jax.sampling.image_batch import Blend, GuideModel


@dataclass(frozen=True)
class GuidedModel:
    """Network on the prompts of one batch, with as few calls as guidance requires."""

    model: LIDiT
    params: Any
    prefix_lengths: tuple[int, ...]
    """Number of instruction tokens of each stream."""
    conditions: TextConditions
    unconditional: TextConditions | None
    """Conditions of the empty or negative prompts, batch 1 or B; None without guidance."""
    blend: Blend | None = None
    guide: GuideModel | None = None
    """Weaker network for autoguidance; `unconditional` and `blend` are then unused."""

    def model_fn(self) -> ModelFn | PairFn:
        """Return the function that computes every evaluation in full."""
        return self._guided(lambda network: network)

    def cached(self) -> CachedModel:
        """Return functions that compute an evaluation in full or from `models.step_cache`."""

        def compute(x_t: Array, time: Array) -> tuple[Array | Pair, Activations]:
            cached = []

            def keeping(network: Callable) -> ModelFn:
                def model_fn(x_t: Array, time: Array) -> Array:
                    prediction, activations = network(x_t, time, keep=True)
                    cached.append(activations)
                    return prediction

                return model_fn

            return self._guided(keeping)(x_t, time), tuple(cached)

        def reuse(x_t: Array, time: Array, cached: Activations) -> Array | Pair:
            parts = iter(cached)
            reusing = lambda network: functools.partial(network, reuse=next(parts))  # noqa: E731
            return self._guided(reusing)(x_t, time)

        return CachedModel(compute, reuse)

    def _guided(self, form: Callable[[Callable], ModelFn]) -> ModelFn | PairFn:
        """Apply `form` to the one or two networks that guidance evaluates."""

        def bind(model: LIDiT, params: Any, *conditions: TextConditions) -> ModelFn:
            joined = concatenate_conditions(*conditions)
            return form(
                functools.partial(
                    model.apply,
                    {"params": params},
                    features=joined.features,
                    masks=joined.masks,
                    prefix_lengths=self.prefix_lengths,
                )
            )

        prompts, weight = (self.conditions,), None
        if self.blend is not None:
            prompts += (self.blend.conditions,)
            weight = jnp.asarray(self.blend.weight)
        if self.unconditional is None:
            network = bind(self.model, self.params, *prompts)
            if weight is None:
                return network
            both = in_one_batch(network)
            return lambda x_t, time: _mean(*both(x_t, time), weight)
        if self.guide is not None:
            network = bind(self.model, self.params, self.conditions)
            return autoguidance(network, bind(*self.guide, self.conditions))
        network = bind(self.model, self.params, *prompts, self.unconditional)
        return in_one_batch(network, weight)


def _mean(first: Array, second: Array, weight: Array) -> Array:
    weight = jnp.reshape(weight, (-1,) + (1,) * (first.ndim - 1))
    return (1 - weight) * first + weight * second
