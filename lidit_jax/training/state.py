"""Everything a run must remember between two steps, as one tree."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, UInt32

from lidit_jax.config import Config, OptimizerConfig


class TrainState(flax.struct.PyTreeNode):
    """One checkpoint's worth of state; saved, restored and donated as a unit."""

    step: Int[Array, ""]
    """Updates done."""
    position: Int[Array, ""]
    """Batches consumed: the whole state of the data pipeline, whose order is a pure function."""
    key: UInt32[Array, " 2"]
    """Data of the run's random key; step and sample are folded in, so it never changes."""
    params: Any
    ema_params: Any
    """Averaged weights, which sampling uses."""
    opt_state: Any


def create_state(
    init: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, config: Config
) -> TrainState:
    """A fresh state; pure, so that `jax.jit` can create it already sharded.

    Args:
      init: from a random key to (boxed) parameters.
      optimizer: the optimizer that will update them.
      config: the run's configuration; its seed decides all.
    """
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    params = init(init_key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        position=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(run_key),
        params=params,
        # A copy: donated buffers must not be shared between two leaves.
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
    )


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear warm-up, then constant or cosine to zero at the last step."""
    warmup = optax.linear_schedule(0.0, config.learning_rate, max(config.warmup_steps, 1))
    if config.schedule == "cosine":
        decay_steps = max(steps - config.warmup_steps, 1)
        after = optax.cosine_decay_schedule(config.learning_rate, decay_steps)
    else:
        after = optax.constant_schedule(config.learning_rate)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """AdamW behind global-norm clipping."""
    optimizer = config.optimizer
    return optax.chain(
        optax.clip_by_global_norm(optimizer.clip_norm),
        optax.adamw(
            learning_rate(optimizer, config.training.steps),
            b1=optimizer.beta1,
            b2=optimizer.beta2,
            weight_decay=optimizer.weight_decay,
        ),
    )
