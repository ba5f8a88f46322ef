"""The diffusion loss: what training minimizes, validation measures and plans compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num

from lidit_jax.diffusion.dropout import sample_keys
from lidit_jax.diffusion.process import Process
from lidit_jax.training.step import Batch

VALIDATION_TIMES = 8

Predict = Callable[[Any, Any, Any, Any], tuple[Any, Any]]
"""The network: `(x_t, time, features, masks) -> (prediction, anything else to hand on)`."""


class Draws(NamedTuple):
    """What chance decides of each sample of a batch."""

    times: Num[Array, " B"]
    noise: Float[Array, "B h w C"]


def random_draws(
    process: Process, batch: Batch, time_key: Key[Array, ""], noise_key: Key[Array, ""]
) -> Draws:
    """Draws of training: keyed by (key, record), so that they do not depend on the mesh."""
    index = batch["index"]
    times = jax.vmap(lambda key: process.sample_times(key, ()))(sample_keys(time_key, index))
    return Draws(times, _noise(batch, noise_key))


def fixed_draws(process: Process, batch: Batch) -> Draws:
    """Draws of validation: one of eight times in turn, and noise that is always the same."""
    times = jnp.asarray(process.validation_times(VALIDATION_TIMES))
    return Draws(times[batch["index"] % VALIDATION_TIMES], _noise(batch, jax.random.key(0)))


def diffusion_loss(
    predict: Predict, process: Process, batch: Batch, draws: Draws
) -> tuple[Float[Array, " B"], Any]:
    """The loss of each sample, and what else the network gave; pure.

    Args:
      predict: the network with its weights.
      process: mixes images with noise, and compares the prediction with its target.
      batch: normalized latents, features and masks.
      draws: a time and noise for each sample.
    """
    x0 = batch["latent"]
    x_t = process.add_noise(x0, draws.noise, draws.times)
    time = process.model_time(draws.times)
    prediction, others = predict(x_t, time, batch["features"], batch["masks"])
    return process.loss(prediction, x0, draws.noise, draws.times), others


def _noise(batch: Batch, key: Key[Array, ""]) -> Float[Array, "B h w C"]:
    shape = batch["latent"].shape[1:]
    draw = lambda key: jax.random.normal(key, shape)  # noqa: E731
    return jax.vmap(draw)(sample_keys(key, batch["index"]))
