"""Guidance: combine a conditional and an unconditional prediction into one.

| method     | the guided prediction                                                            |
|------------|----------------------------------------------------------------------------------|
| `cfg`      | away from the unconditional prediction (https://arxiv.org/abs/2207.12598)        |
| `cfg_zero` | CFG with an optimally scaled unconditional prediction and zero velocity in the   |
|            | first steps; flow only (CFG-Zero*, https://arxiv.org/abs/2503.18886)             |
| `apg`      | CFG with only the part of the update that is orthogonal to the image, clipped in |
|            | norm, with momentum (https://arxiv.org/abs/2410.02416)                           |

Each method can be limited to an interval of noise levels (https://arxiv.org/abs/2404.07724) and
followed by a rescaling to the contrast of the conditional prediction
(https://arxiv.org/abs/2305.08891, section 3.4).

The unconditional prediction is that of the empty prompt, of a negative prompt, or, in autoguidance
(https://arxiv.org/abs/2406.02507), of a weaker network on the same prompt, the guide. The former
two share one batch of 2B with the prompts; the order is `[conditional, unconditional]` everywhere:

```
conditions = concatenate_conditions(of_the_prompts, of_the_empty_prompt)
pair_fn = in_one_batch(lambda x_t, time: model.apply(params, x_t, time, **conditions))
sample(pair_fn, process, noise, Sampler(name="ddim", steps=50), guidance=Guidance(scale=5.0))
```
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lidit_jax.diffusion.parameterization import Images, convert

METHODS = {"ddpm": ("cfg", "apg"), "flow": ("cfg", "cfg_zero", "apg")}

ModelFn = Callable[[Float[Array, "B ..."], Float[Array, " B"]], Float[Array, "B ..."]]
"""Function from x_t and `Process.model_time(t)` to the prediction."""

State = Any
"""State that a method carries from one evaluation to the next: a pytree."""

Conditions = TypeVar("Conditions")


class Pair(NamedTuple):
    """Conditional and unconditional prediction."""

    conditional: Images
    """Prediction for the prompts; guidance moves toward it."""
    unconditional: Images
    """Prediction for the empty or negative prompt, or of a guide model; guidance moves away from
    it."""


PairFn = Callable[[Float[Array, "B ..."], Float[Array, " B"]], Pair]


class StepContext(NamedTuple):
    """Position of one guidance evaluation within sampling."""

    space: str
    """Prediction space (`lidit_jax.diffusion.parameterization`)."""
    x_t: Images
    signal: Float[Array, ""]
    sigma: Float[Array, ""]
    normalized_time: Float[Array, ""]
    """Normalized time: 0 is the clean image, 1 pure noise."""
    step: Array
    """Index of the step, from 0."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Guidance method, scale and interval; the numbers are inputs of the compiled program."""

    scale: Float[Array, ""] | Float[Array, " B"] | float
    """Guidance scale, shared or one per sample; 1 is exactly the conditional prediction, 0 the
    unconditional one."""
    method: str = field(default="cfg", metadata={"static": True})
    low: Float[Array, ""] | float = 0.0
    """Lower end of the interval of normalized times with guidance."""
    high: Float[Array, ""] | float = 1.0
    """Upper end of that interval; outside it the scale is 1."""
    rescale: Float[Array, ""] | float = 0.0
    """Fraction of the rescaling to the conditional prediction's standard deviation, 0 to 1."""
    zero_steps: int = field(default=1, metadata={"static": True})
    """"cfg_zero": number of first steps with zero velocity."""
    apg_parallel: Float[Array, ""] | float = 0.0
    """"apg": weight of the part of the update that is parallel to the image; 1 keeps all of it."""
    apg_norm: Float[Array, ""] | float = 0.0
    """"apg": largest norm of the update per sample; 0 for no limit."""
    apg_momentum: Float[Array, ""] | float = -0.5
    """"apg": momentum; negative values move away from earlier updates."""

    def start(self, x: Images) -> State:
        """Return the state before the first evaluation."""
        return jnp.zeros_like(x) if self.method == "apg" else ()

    def combine(self, pair: Pair, context: StepContext, state: State) -> tuple[Images, State]:
        """Return the guided prediction, in the prediction space of the pair.

        Plain CFG is the same in every space, as all are affine in each other at fixed x_t.
        """
        inside = (self.low <= context.normalized_time) & (context.normalized_time <= self.high)
        scale = jnp.where(inside, jnp.asarray(self.scale, context.x_t.dtype), 1.0)
        extra = jnp.reshape(scale - 1, (-1,) + (1,) * (context.x_t.ndim - 1))
        match self.method:
            case "cfg_zero":
                guided = self._cfg_zero(pair, context, extra)
            case "apg":
                guided, state = self._apg(pair, context, extra, state)
            case _:
                guided = pair.conditional + extra * (pair.conditional - pair.unconditional)
        return rescale_guidance(guided, pair.conditional, self.rescale), state

    def _cfg_zero(self, pair: Pair, context: StepContext, extra: Array) -> Images:
        conditional, unconditional = _convert_pair(pair, context, "velocity")
        # The projection of the conditional velocity on the unconditional one.
        optimal = _dot(conditional, unconditional) / (_dot(unconditional, unconditional) + 1e-8)
        velocity = conditional + extra * (conditional - optimal * unconditional)
        velocity = jnp.where(context.step < self.zero_steps, 0.0, velocity)
        return _from("velocity", velocity, context)

    def _apg(
        self, pair: Pair, context: StepContext, extra: Array, state: State
    ) -> tuple[Images, State]:
        conditional, unconditional = _convert_pair(pair, context, "x0")
        change = state = conditional - unconditional + self.apg_momentum * state
        length = jnp.sqrt(_dot(change, change))
        limit = jnp.where(jnp.asarray(self.apg_norm) > 0, self.apg_norm, jnp.inf)
        change = change * jnp.minimum(1.0, limit / jnp.maximum(length, 1e-12))
        share = _dot(change, conditional) / jnp.maximum(_dot(conditional, conditional), 1e-12)
        change = change + (self.apg_parallel - 1) * share * conditional
        return _from("x0", conditional + extra * change, context), state


def in_one_batch(model_fn: ModelFn, blend: Float[Array, " B"] | None = None) -> PairFn:
    """Return a function that computes the pair in one call of the network on 2B samples.

    Args:
      model_fn: returns predictions [2B, ...] in the order `[conditional, unconditional]`.
      blend: if given, there are two prompts per sample, `model_fn` returns [3B, ...] in the order
        `[first, second, unconditional]`, and the conditional prediction is the mean of the first
        two with weights 1 - blend and blend.
    """
    parts = 2 if blend is None else 3

    def pair_fn(x_t: Float[Array, "B ..."], time: Float[Array, " B"]) -> Pair:
        output = model_fn(jnp.concatenate([x_t] * parts), jnp.concatenate([time] * parts))
        conditional, *second, unconditional = jnp.split(output.astype(x_t.dtype), parts)
        if blend is not None:
            weight = jnp.reshape(blend, (-1,) + (1,) * (x_t.ndim - 1)).astype(x_t.dtype)
            conditional = (1 - weight) * conditional + weight * second[0]
        return Pair(conditional, unconditional)

    return pair_fn


def autoguidance(model_fn: ModelFn, guide_fn: ModelFn) -> PairFn:
    """Return a function that pairs a network with a weaker guide network on the same prompts."""
    return lambda x_t, time: Pair(model_fn(x_t, time), guide_fn(x_t, time))


def concatenate_conditions(*parts: Conditions) -> Conditions:
    """Concatenate several conditions along the batch axis, in the given order.

    Args:
      parts: pytrees of arrays, the first of [B, ...], the others of [B, ...] or [1, ...].

    Returns:
      The pytree with arrays [len(parts) * B, ...].
    """

    def concatenate(first: Array, *others: Array) -> Array:
        return jnp.concatenate([first, *(jnp.broadcast_to(o, first.shape) for o in others)])

    return jax.tree.map(concatenate, *parts)


def rescale_guidance(
    guided: Images, conditional: Images, fraction: Float[Array, ""] | float
) -> Images:
    """Rescale guided predictions toward the standard deviation of the conditional ones.

    Args:
      guided: predictions.
      conditional: predictions before guidance.
      fraction: 0 for none, 1 for exactly that standard deviation; the paper uses 0.7.
    """
    axes = tuple(range(1, guided.ndim))
    ours = jnp.std(guided, axis=axes, keepdims=True)
    theirs = jnp.std(conditional, axis=axes, keepdims=True)
    ratio = jnp.where(ours > 0, theirs / jnp.where(ours > 0, ours, 1.0), 1.0)
    return guided + fraction * (ratio - 1) * guided


def _convert_pair(pair: Pair, context: StepContext, space: str) -> Pair:
    return Pair(
        *(
            convert(context.space, space, p, context.x_t, context.signal, context.sigma)
            for p in pair
        )
    )


def _from(space: str, prediction: Images, context: StepContext) -> Images:
    return convert(space, context.space, prediction, context.x_t, context.signal, context.sigma)


def _dot(a: Images, b: Images) -> Images:
    """Return the dot product per sample, [B, 1, ...]."""
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)), keepdims=True)
