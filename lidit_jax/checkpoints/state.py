"""Train state of a run, as one pytree."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, UInt32

from lidit_jax.config.schema import Config
from lidit_jax.weights.parameter_paths import split


class TrainState(flax.struct.PyTreeNode):
    """Train state, saved, restored and donated as a unit."""

    step: Int[Array, ""]
    """Number of updates."""
    position: Int[Array, ""]
    """Batches consumed: the whole state of the data pipeline, a pure function of it."""
    key: UInt32[Array, " 2"]
    """Data of the run's random key; constant, as step and sample are folded in."""
    params: Any
    ema_params: Any
    """EMA weights, which sampling uses."""
    opt_state: Any
    """State of the optimizer, for the parameters that are not frozen."""


def create_state(
    init: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, config: Config
) -> TrainState:
    """Create the initial state; pure, so that `jax.jit` can create it already sharded.

    Args:
      init: function from a random key to (boxed) parameters.
      optimizer: the optimizer that will update them.
      config: the run's configuration; its seed determines the state.
    """
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    params = init(init_key)
    trained, _ = split(params, config.optimizer.freeze)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        position=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(run_key),
        params=params,
        # A copy: donated buffers must not be shared between two leaves.
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=jax.tree.map(_fitting, optimizer.init(trained), is_leaf=_is_boxed),
    )


def _is_boxed(leaf: Any) -> bool:
    return isinstance(leaf, nn.LogicallyPartitioned)


def _fitting(leaf: Any) -> Any:
    """Remove a parameter's axis names from an optimizer state leaf of another rank: Adafactor keeps
    one value per row and per column, replicated on every device, and Muon nothing for parameters
    that are not matrices."""
    if _is_boxed(leaf) and getattr(leaf.value, "ndim", None) != len(leaf.names):
        return leaf.value
    return leaf
