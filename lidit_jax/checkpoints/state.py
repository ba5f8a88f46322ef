"""Everything a run must remember between two steps, as one tree."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, UInt32

from lidit_jax.config.schema import Config


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
        opt_state=jax.tree.map(_fitting, optimizer.init(params), is_leaf=_is_boxed),
    )


def _is_boxed(leaf: Any) -> bool:
    return isinstance(leaf, nn.LogicallyPartitioned)


def _fitting(leaf: Any) -> Any:
    """A leaf of the optimizer's state, without the axis names of its parameter where they do not
    fit: Adafactor keeps one value per row and per column, which every device holds, and Muon
    nothing at all for what is no matrix."""
    if _is_boxed(leaf) and getattr(leaf.value, "ndim", None) != len(leaf.names):
        return leaf.value
    return leaf
