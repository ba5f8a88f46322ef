"""Starting a run from the weights of another: the next stage, or a fine-tune."""

from __future__ import annotations

from typing import Any

import flax.traverse_util
import jax

from lidit_jax.errors import LiditError
from lidit_jax.saved_model import load_model
from lidit_jax.training.state import TrainState


def start_from(state: TrainState, source: str) -> tuple[TrainState, list[str]]:
    """A fresh state with the averaged weights of `source` as its weights and averages.

    Args:
      state: fresh and already sharded; optimizer, step and keys stay as they are.
      source: a workdir of `lidit train`, one of its checkpoints, or an exported folder.

    Returns:
      The state, and the parameters that the source lacks, which stay as initialised.

    Raises:
      LiditError: when the source cannot be read, or a parameter has another shape there.
    """
    fresh = flax.traverse_util.flatten_dict(state.params, sep="/")
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state.params)
    weights, _, _ = load_model(source, shardings=shardings)
    given = flax.traverse_util.flatten_dict(weights, sep="/")
    for name in sorted(given.keys() & fresh.keys()):
        if given[name].shape != fresh[name].shape:
            raise LiditError(
                f"config.training.init_from={source!r}: {name} has shape "
                f"{list(given[name].shape)} there and {list(fresh[name].shape)} here: "
                "use the same config.model"
            )
    if not given.keys() & fresh.keys():
        raise LiditError(
            f"config.training.init_from={source!r} shares no parameter with this model"
        )

    def place() -> Any:
        taken = {
            name: jax.device_put(given.get(name, leaf), leaf.sharding).astype(leaf.dtype)
            for name, leaf in fresh.items()
        }
        return flax.traverse_util.unflatten_dict(taken, sep="/")

    # Two copies: donated buffers must not be shared between two leaves.
    params = place()
    averages = jax.tree.map(lambda leaf: leaf.copy(), params)
    missing = sorted(fresh.keys() - given.keys())
    return state.replace(params=params, ema_params=averages), missing
