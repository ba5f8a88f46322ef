"""Diffusion loss for training, validation and ahead-of-time compilation."""

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
"""Network function: `(x_t, time, features, masks) -> (prediction, auxiliary output)`."""


class Draws(NamedTuple):
    """Random time and noise of each sample of a batch."""

    times: Num[Array, " B"]
    noise: Float[Array, "B h w C"]


def random_draws(
    process: Process, batch: Batch, time_key: Key[Array, ""], noise_key: Key[Array, ""]
) -> Draws:
    """Draw times and noise for training, keyed by (key, record), independent of the mesh."""
    index = batch["index"]
    times = jax.vmap(lambda key: process.sample_times(key, ()))(sample_keys(time_key, index))
    return Draws(times, _noise(batch, noise_key))


def fixed_draws(process: Process, batch: Batch) -> Draws:
    """Return fixed times and noise for validation: one of eight times in turn per record."""
    times = jnp.asarray(process.validation_times(VALIDATION_TIMES))
    return Draws(times[batch["index"] % VALIDATION_TIMES], _noise(batch, jax.random.key(0)))


def diffusion_loss(
    predict: Predict, process: Process, batch: Batch, draws: Draws
) -> tuple[Float[Array, " B"], Any]:
    """Return the loss of each sample and the network's auxiliary output; pure.

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
