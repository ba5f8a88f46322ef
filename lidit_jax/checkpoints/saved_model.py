"""Trained models by name or path: the packaged demo, exported folders, workdirs, checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax

from lidit_jax.checkpoints.bundle import describe_bundle, is_bundle, load_bundle
from lidit_jax.checkpoints.orbax import Checkpoints
from lidit_jax.config.load import config_from_json
from lidit_jax.config.schema import Config
from lidit_jax.errors import LiditError
from lidit_jax.io.paths import PACKAGED, to_path


def model_folder(checkpoint: str | Path) -> Path:
    """The folder that "demo", or a path, names."""
    return PACKAGED / "demo" if str(checkpoint) == "demo" else to_path(checkpoint).expanduser()


def load_model(
    checkpoint: str | Path, *, raw: bool = False, shardings: Any = None
) -> tuple[Any, Config, dict[str, Any]]:
    """Weights, configuration and metadata of a trained model.

    Args:
      checkpoint: "demo", an exported folder, a workdir (its newest checkpoint), or one of its
        `checkpoints/STEP`.
      raw: the raw weights of a workdir instead of their moving average.
      shardings: where to put the parameters; a tree like theirs, which may lack some.

    Raises:
      LiditError: when there is no such model, it is damaged, or it does not divide.
    """
    folder = model_folder(checkpoint)
    if not is_bundle(folder):
        return load_workdir(folder, raw=raw, shardings=shardings)
    if raw:
        raise LiditError(f"{folder} holds averaged weights only: leave out --raw")
    bundle = load_bundle(folder)
    params = flax.traverse_util.flatten_dict(bundle.params)
    known = flax.traverse_util.flatten_dict(shardings or {})
    params |= {path: jax.device_put(params[path], known[path]) for path in params.keys() & known}
    return flax.traverse_util.unflatten_dict(params), bundle.config, bundle.metadata


def describe_model(checkpoint: str | Path) -> tuple[Config, dict[str, Any]]:
    """Configuration and metadata of a trained model, without its weights.

    Raises:
      LiditError: when there is no such model, or it is damaged.
    """
    folder = model_folder(checkpoint)
    if is_bundle(folder):
        return describe_bundle(folder)
    checkpoints, step = open_workdir(folder)
    with checkpoints:
        metadata = checkpoints.metadata(step)
    return config_from_json(json.dumps(metadata.pop("config"))), metadata | {"step": step}


def load_workdir(
    workdir: Path, *, raw: bool = False, shardings: Any = None
) -> tuple[Any, Config, dict[str, Any]]:
    """Weights, configuration and metadata of a checkpoint that training left.

    Args:
      workdir: its newest checkpoint is loaded; or one of its `checkpoints/STEP`.
      raw: the raw weights instead of their moving average.
      shardings: where to put the parameters; a tree like theirs, which may lack some.

    Raises:
      LiditError: when there is none, or it is damaged.
    """
    checkpoints, step = open_workdir(workdir)
    with checkpoints:
        metadata = checkpoints.metadata(step)
        params = checkpoints.restore_weights(step, "params" if raw else "ema_params", shardings)
    config = config_from_json(json.dumps(metadata.pop("config")))
    return params, config, metadata | {"step": step}


def open_workdir(workdir: Path) -> tuple[Checkpoints, int]:
    """The checkpoints of a workdir, to be closed, and the step that the path means.

    Args:
      workdir: stands for its newest checkpoint; or one of its `checkpoints/STEP`.

    Raises:
      LiditError: when there is none.
    """
    step = None
    if workdir.parent.name == "checkpoints" and workdir.name.isdecimal():
        workdir, step = workdir.parent.parent, int(workdir.name)
    if not (workdir / "checkpoints").is_dir():
        raise LiditError(
            f"no checkpoint in {workdir}: name a workdir of `lidit train`, an exported folder, or "
            "'demo'"
        )
    checkpoints = Checkpoints(workdir)
    steps = checkpoints.steps()
    if step is None and steps:
        step = steps[-1]
    if step not in steps:
        checkpoints.close()
        if not steps:
            raise LiditError(f"{workdir} has no complete checkpoint yet: let `lidit train` go on")
        raise LiditError(f"{workdir} has no checkpoint of step {step}: it has {steps}")
    return checkpoints, step
