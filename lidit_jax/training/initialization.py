"""Initialization of a run from another run's weights, for the next stage or fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import optax

from lidit_jax.checkpoints.bundle import is_bundle
from lidit_jax.checkpoints.opener import open_model
from lidit_jax.checkpoints.orbax import Checkpoints
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.checkpoints.state import TrainState
from lidit_jax.config.schema import Config
from lidit_jax.data.latent_statistics import SavedStatistics
from lidit_jax.errors import LiditError
from lidit_jax.io.paths import to_path
from lidit_jax.pytorch.hunyuan_refiner import is_refiner, load_refiner
from lidit_jax.training.refiner_start import refiner_parameters
from lidit_jax.weights.parameter_paths import by_path


def inherited_statistics(
    config: Config, resumed: Provenance | None, workdir: Path
) -> SavedStatistics | None:
    """Return the latent statistics that a run's weights were trained with; None for fresh weights.

    Args:
      config: of the run.
      resumed: provenance of the checkpoint that it resumes, if any.
      workdir: folder of that checkpoint.

    Raises:
      LiditError: when `config.training.init_from` names no trained model.
    """
    if resumed:
        return SavedStatistics.of(resumed, str(workdir))
    if (source := config.training.init_from) and not is_refiner(to_path(source).expanduser()):
        return SavedStatistics.of(open_model(source).provenance, source)
    return None


def encoder_change_warning(encoders: Sequence[dict[str, Any]], source: str) -> list[str]:
    """Return a warning line if the weights of `source` were trained with other text encoders.

    Args:
      encoders: description of this run's encoders.
      source: `config.training.init_from`.
    """
    if is_refiner(to_path(source).expanduser()):
        return []
    names = ("layer", "fingerprint", "prefix")
    ours, theirs = (
        [[stream[name] for name in names] for stream in streams]
        for streams in (encoders, open_model(source).provenance.encoders)
    )
    if ours == theirs:
        return []
    return [
        f"{source} was trained with other text encoders, layers or another instruction than "
        "config.encoders has: its weights meet features that are new to them"
    ]


def initialize_from_run(state: TrainState, config: Config) -> tuple[TrainState, list[str]]:
    """Load another run's EMA weights as the weights and EMA weights of a fresh state.

    Args:
      state: fresh and already sharded; optimizer, step and keys are kept.
      config: of this run. `training.init_from` is a workdir of `lidit train`, one of its
        checkpoints, an exported folder, or a refiner of `lidit convert from-hf`. With
        `training.init_optimizer` raw weights, EMA weights and the optimizer's moments are all
        copied; then it must be a workdir of the same model and optimizer.

    Returns:
      The state, and the parameters that the source lacks, which stay as initialized.

    Raises:
      LiditError: when the source cannot be read, or a parameter has another shape there.
    """
    source = config.training.init_from
    if config.training.init_optimizer:
        return _taken_over(state, source), []
    folder = to_path(source).expanduser()
    fresh = by_path(state.params)
    shapes = {name: leaf.shape for name, leaf in fresh.items()}
    if is_refiner(folder):
        given = refiner_parameters(load_refiner(folder), config, shapes)
    else:
        model = open_model(source)
        _check_shapes(source, model.shapes, shapes)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state.params)
        given = by_path(model.load(shardings))

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


def initialization_summary(source: str, fresh: list[str]) -> str:
    """Return a log line about the initialization and the modules with fresh parameters."""
    parts = sorted({name.partition("/")[0] for name in fresh})
    where = f", in {', '.join(parts)}" if parts else ""
    return f"weights from {source}; {len(fresh)} parameters start afresh{where}"


def _check_shapes(
    source: str, there: dict[str, tuple[int, ...]], here: dict[str, tuple[int, ...]]
) -> None:
    """Check that at least one parameter is shared, and that shared ones have the same shape."""
    for name in sorted(there.keys() & here.keys()):
        if there[name] != here[name]:
            raise LiditError(
                f"config.training.init_from={source!r}: {name} has shape {list(there[name])} there "
                f"and {list(here[name])} here: use the same config.model"
            )
    if not there.keys() & here.keys():
        raise LiditError(
            f"config.training.init_from={source!r} shares no parameter with this model"
        )


def _taken_over(state: TrainState, source: str) -> TrainState:
    refiner = is_refiner(to_path(source).expanduser())
    model = None if refiner else open_model(source)
    if model is None or model.step is None or is_bundle(model.folder):
        raise LiditError(
            f"config.training.init_optimizer: {source!r} has weights alone; name a workdir in "
            "config.training.init_from, or set it to False"
        )
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )
    try:
        with Checkpoints(model.folder.parent.parent) as checkpoints:
            kept = checkpoints.restore(model.step, shapes)
    except LiditError as error:
        raise LiditError(
            f"config.training.init_optimizer: {source!r} is damaged, or does not hold this model "
            "with this optimizer; set it to False to take its weights alone"
        ) from error

    def schedule(part: Any) -> bool:
        return isinstance(part, optax.ScaleByScheduleState)

    # The learning rate follows this run's schedule from its beginning.
    opt_state = jax.tree.map(
        lambda fresh, old: fresh if schedule(fresh) else old,
        state.opt_state,
        kept.opt_state,
        is_leaf=schedule,
    )
    return kept.replace(
        step=state.step, position=state.position, key=state.key, opt_state=opt_state
    )
