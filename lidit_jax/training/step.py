"""One update, and one validation loss: the two programs that are compiled."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lidit_jax.config import Config
from lidit_jax.training.state import TrainState, learning_rate

Batch = dict[str, Any]
Metrics = dict[str, jax.Array]
LossFunction = Callable[[Any, Any, Batch, jax.Array], tuple[jax.Array, Metrics]]


def make_train_step(
    loss: LossFunction, optimizer: optax.GradientTransformation, config: Config
) -> Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]]:
    """The pure update `(state, frozen, batch) -> (state, metrics)`; the caller compiles it.

    Args:
      loss: `(params, frozen, batch, key) -> (scalar, metrics)`.
      optimizer: see `make_optimizer`.
      config: the run's configuration.
    """
    schedule = learning_rate(config.optimizer, config.training.steps)

    def train_step(state: TrainState, frozen: Any, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, metrics), grads = gradient(state.params, frozen, batch, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # The average starts short, so that early weights do not linger in it.
        count = state.step.astype(jnp.float32)
        decay = jnp.minimum(config.training.ema_decay, (1.0 + count) / (10.0 + count))
        new_state = state.replace(
            step=state.step + 1,
            position=state.position + 1,
            params=params,
            ema_params=optax.incremental_update(params, state.ema_params, 1.0 - decay),
            opt_state=opt_state,
        )
        metrics = metrics | {
            "loss": value,
            "gradient_norm": optax.global_norm(grads),
            "learning_rate": jnp.asarray(schedule(state.step)),
        }
        return new_state, metrics

    return train_step
