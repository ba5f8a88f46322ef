"""Initialization of a run from another run's weights, for the next stage or fine-tuning."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
from lidit_jax.training.resume import flat_fields
from lidit_jax.weights.parameter_paths import by_path, split
from lidit_jax.weights.path_patterns import check_patterns, covering, selected
from lidit_jax.weights.placement import first_names

_STREAM = ("layer", "fingerprint", "prefix")
"""What identifies the features of an encoder."""
_PROJECTION = "linguistic_refiner_{}/projection"
"""Module that meets the features of a stream first."""
_FREE = ("model.dtype", "model.remat", "model.scan_unroll", "model.attention")
_FREE += ("diffusion.caption_dropout", "diffusion.weighting", "diffusion.loss")
"""Fields of the model and the diffusion that any stage may choose anew."""


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


def change_notes(
    encoders: Sequence[dict[str, Any]], config: Config, fresh: Collection[str]
) -> list[str]:
    """Return a log line for each way in which the source's weights served something else.

    Args:
      encoders: description of this run's encoders.
      config: of the run, with a `training.init_from`.
      fresh: paths of the parameters that start afresh.
    """
    source = config.training.init_from
    if is_refiner(to_path(source).expanduser()):
        return []
    model = open_model(source)
    before, now = (_meaning(one) for one in (model.config, config))
    starting = [k for k in range(len(encoders)) if selected([_PROJECTION.format(k)], fresh)]
    all_new = len(starting) == len(encoders) > 0
    notes = [
        f"config.{name}={value!r}, with {before[name]!r} in {source}"
        for name, value in now.items()
        if before[name] != value
        and not (all_new and name.startswith(("model.refiner.", "encoders.")))
    ]
    ours, theirs = (
        [[stream[name] for name in _STREAM] for stream in streams]
        for streams in (encoders, model.provenance.encoders)
    )
    if ours != theirs and not all_new:
        notes.append(
            f"{source} was trained with other text encoders, layers or another instruction than "
            "config.encoders has: its weights meet features that are new to them"
        )
    return notes


def _meaning(config: Config) -> dict[str, Any]:
    """Return the fields that determine what the weights compute, apart from their shapes."""
    flat = flat_fields(config.to_dict())
    kept = ("model.", "diffusion.", "encoders.lowercase")
    return {k: v for k, v in flat.items() if k.startswith(kept) and k not in _FREE}


def initialize_from_run(state: TrainState, config: Config) -> tuple[TrainState, list[str]]:
    """Load another run's EMA weights as the weights and EMA weights of a fresh state.

    Args:
      state: fresh and already sharded; optimizer, step and keys are kept.
      config: of this run. `training.init_from` is a workdir of `lidit train`, one of its
        checkpoints, an exported folder, or a refiner of `lidit convert from-hf`. With
        `training.init_optimizer` raw weights, EMA weights and the optimizer's moments are all
        copied; then it must be a workdir of the same model and optimizer.

    Returns:
      The state, and the parameters that stay as initialized: those of `training.init_new`, or all
      but the refiners that a refiner fits.

    Raises:
      LiditError: when the source cannot be read, a pattern of `init_new` matches nothing, or
        another parameter is missing there, has no place here, or has another shape.
    """
    source = config.training.init_from
    if config.training.init_optimizer:
        return _taken_over(state, config), []
    folder = to_path(source).expanduser()
    fresh = by_path(state.params)
    shapes = {name: leaf.shape for name, leaf in fresh.items()}
    if is_refiner(folder):
        if config.training.init_new:
            raise LiditError(
                f"config.training.init_new={config.training.init_new}: {source!r} is a refiner, "
                "beside which all starts afresh: leave it empty"
            )
        given = refiner_parameters(load_refiner(folder), config, shapes)
    else:
        model = open_model(source)
        _check_parameters(config, model.shapes, shapes)
        wanted, _ = split(state.params, config.training.init_new)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, wanted)
        given = by_path(model.load(shardings, partly=True))

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


def _check_parameters(
    config: Config, there: Mapping[str, tuple[int, ...]], here: Mapping[str, tuple[int, ...]]
) -> None:
    """Check that source and model have the same parameters, but for those of `init_new`."""
    new = config.training.init_new
    check_patterns("config.training.init_new", new, there.keys() | here.keys())
    left = selected(new, there.keys() | here.keys())
    lacking = sorted(here.keys() - there.keys() - left)
    homeless = sorted(there.keys() - here.keys() - left)
    reshaped = [
        f"{name} has shape {list(there[name])} there and {list(here[name])} here"
        for name in sorted(there.keys() & here.keys() - left)
        if tuple(there[name]) != tuple(here[name])
    ]
    problems = [
        *([f"it lacks {first_names(lacking)}"] if lacking else []),
        *([f"this model has no {first_names(homeless)}"] if homeless else []),
        *([first_names(reshaped)] if reshaped else []),
    ]
    if not problems:
        return
    wrong = {*lacking, *homeless, *(line.partition(" ")[0] for line in reshaped)}
    modules = {name.partition("/")[0] for name in wrong}
    parts = covering(wrong, there.keys() | here.keys())
    patterns = (*new, *(parts if len(parts) <= len(modules) else sorted(modules)))
    raise LiditError(
        f"config.training.init_from={config.training.init_from!r}: {'; '.join(problems)}: use the "
        "same config.model and encoders, or let these start afresh with "
        f'--config.training.init_new="{patterns}"'
    )


def _taken_over(state: TrainState, config: Config) -> TrainState:
    source = config.training.init_from
    refiner = is_refiner(to_path(source).expanduser())
    model = None if refiner else open_model(source)
    if model is None or model.step is None or is_bundle(model.folder):
        raise LiditError(
            f"config.training.init_optimizer: {source!r} has weights alone; name a workdir in "
            "config.training.init_from, or set it to False"
        )
    freeze, paths = config.optimizer.freeze, by_path(state.params)
    before = model.config.optimizer.freeze
    if selected(freeze, paths) != selected(before, paths):
        raise LiditError(
            f"config.training.init_optimizer: {source!r} has the moments of other parameters, with "
            f"config.optimizer.freeze={before}, not {freeze}; set it to False to take its weights "
            "alone, or freeze the same"
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
