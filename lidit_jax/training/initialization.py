"""Starting a run from the weights of another, and from what belongs to them: the next stage, or a
fine-tune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import optax

from lidit_jax.checkpoints.saved_model import (
    describe_model,
    load_model,
    model_folder,
    open_workdir,
)
from lidit_jax.checkpoints.state import TrainState
from lidit_jax.config.schema import Config
from lidit_jax.data.latent_statistics import SavedStatistics
from lidit_jax.errors import LiditError


def statistics_to_keep(
    config: Config, resumed: dict[str, Any] | None, workdir: Path
) -> SavedStatistics | None:
    """The latent statistics that the weights of a run were trained with; None for fresh weights.

    Args:
      config: of the run.
      resumed: metadata of the checkpoint that it resumes, if any.
      workdir: where that is.

    Raises:
      LiditError: when `config.training.init_from` names no trained model.
    """
    if resumed:
        return SavedStatistics.of(resumed, str(workdir))
    if source := config.training.init_from:
        _, metadata = describe_model(source)
        return SavedStatistics.of(metadata, source)
    return None


def other_encoders(encoders: list[dict[str, Any]], source: str) -> list[str]:
    """A line when the weights of `source` were trained on features of other text encoders.

    Args:
      encoders: description of those of this run.
      source: `config.training.init_from`.
    """
    _, metadata = describe_model(source)
    names = ("layer", "fingerprint", "prefix")
    ours, theirs = (
        [[stream[name] for name in names] for stream in streams]
        for streams in (encoders, metadata.get("encoders", []))
    )
    if ours == theirs:
        return []
    return [
        f"{source} was trained with other text encoders, layers or another instruction than "
        "config.encoders has: its weights meet features that are new to them"
    ]


def start_from(
    state: TrainState, source: str, *, optimizer: bool = False
) -> tuple[TrainState, list[str]]:
    """A fresh state with the averaged weights of `source` as its weights and averages.

    Args:
      state: fresh and already sharded; optimizer, step and keys stay as they are.
      source: a workdir of `lidit train`, one of its checkpoints, or an exported folder.
      optimizer: take over raw weights, averages and the optimizer's moments, all as they are; then
        it must be a workdir of the same model and optimizer.

    Returns:
      The state, and the parameters that the source lacks, which stay as initialised.

    Raises:
      LiditError: when the source cannot be read, or a parameter has another shape there.
    """
    if optimizer:
        return _taken_over(state, source), []
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


def _taken_over(state: TrainState, source: str) -> TrainState:
    checkpoints, step = open_workdir(model_folder(source))
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )
    try:
        with checkpoints:
            kept = checkpoints.restore(step, shapes)
    except LiditError as error:
        raise LiditError(
            f"config.training.init_optimizer: {source!r} is damaged, or does not hold this model "
            "with this optimizer; set it to False to take its weights alone"
        ) from error

    def schedule(part: Any) -> bool:
        return isinstance(part, optax.ScaleByScheduleState)

    # The learning rate follows the schedule of this run from its beginning.
    opt_state = jax.tree.map(
        lambda fresh, old: fresh if schedule(fresh) else old,
        state.opt_state,
        kept.opt_state,
        is_leaf=schedule,
    )
    return kept.replace(
        step=state.step, position=state.position, key=state.key, opt_state=opt_state
    )
