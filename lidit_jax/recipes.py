"""From a recipe file and command-line overrides to a checked, frozen `Config`."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib.util
import json
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ml_collections

from lidit_jax.config import Config
from lidit_jax.errors import LiditError

_CHOICES: dict[str, tuple[str, ...]] = {
    "model.position": ("conv", "rope", "sincos", "conv+rope", "conv+sincos"),
    "model.dtype": ("float32", "bfloat16"),
    "model.refiner.feature_norm": ("rms", "none"),
    "model.refiner.pool": ("all", "prompt"),
    "diffusion.process": ("ddpm", "flow"),
    "diffusion.prediction": ("epsilon", "v", "x0", "velocity"),
    "diffusion.loss": ("", "epsilon", "v", "x0", "velocity"),
    "diffusion.time_sampling": ("uniform", "logit_normal"),
    "data.source": ("scenes", "folder"),
    "data.language": ("en", "zh", "both"),
    "optimizer.schedule": ("constant", "cosine"),
    "training.task": ("lidit", "vae"),
}
_POSITIVE = [
    "model.width",
    "model.depth",
    "model.heads",
    "model.patch",
    "vae.channels",
    "vae.width",
    "vae.downsample",
    "vae.patch",
    "vae.blocks",
    "diffusion.timesteps",
    "data.image_size",
    "data.train_records",
    "training.steps",
    "training.batch_size",
    "training.log_every",
    "training.eval_every",
    "training.image_every",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "sampling.steps",
    "encoders.max_prompt_tokens",
    "optimizer.learning_rate",
]


def default_config() -> ml_collections.ConfigDict:
    """All fields at their defaults, as the locked, typed dictionary that recipes override."""
    config = ml_collections.ConfigDict(dataclasses.asdict(Config()))
    config.lock()
    return config


def config_from_json(text: str) -> Config:
    """The inverse of `Config.to_json`. Raises `LiditError` for unknown or mistyped fields."""
    config = default_config()
    for path, value in _flatten(json.loads(text)):
        _set(config, path, tuple(value) if isinstance(value, list) else value)
    return freeze(config)


def freeze(config: ml_collections.ConfigDict) -> Config:
    """Checks every field and returns the frozen `Config`.

    Raises:
      LiditError: for an unknown field, a wrong type or a value out of range; names the field.
    """
    frozen = _build(Config, config.to_dict(), "")
    flat = dict(_flatten(dataclasses.asdict(frozen)))
    for path, choices in _CHOICES.items():
        if flat[path] not in choices:
            raise LiditError(f"config.{path}={flat[path]!r}: choose one of {_quoted(choices)}")
    for path in _POSITIVE:
        if flat[path] <= 0:
            raise LiditError(f"config.{path}={flat[path]!r}: must be greater than 0")
    model, encoders = frozen.model, frozen.encoders
    if model.width % model.heads:
        raise LiditError(
            f"config.model.heads={model.heads} does not divide config.model.width={model.width}"
        )
    if not encoders.sources:
        raise LiditError("config.encoders.sources is empty: name at least one text encoder")
    if encoders.layers and len(encoders.layers) != len(encoders.sources):
        raise LiditError(
            f"config.encoders.layers has {len(encoders.layers)} entries for "
            f"{len(encoders.sources)} encoders: give one a stream, or none"
        )
    return frozen


def load_recipe(recipe: str, overrides: Iterable[str] = ()) -> Config:
    """Loads `configs/NAME.py` (or a packaged recipe by name) and applies `a.b=value` overrides.

    Raises:
      LiditError: when the recipe or a field does not exist, or a value has the wrong type.
    """
    path = find_recipe(recipe)
    spec = importlib.util.spec_from_file_location(f"lidit_recipe_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise LiditError(f"recipe {path} has no get_config() function: see configs/demo.py")
    try:
        config = module.get_config()
    except (AttributeError, KeyError, TypeError) as error:
        raise LiditError(f"recipe {path}: {str(error).splitlines()[0]}") from error
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise LiditError(f"--config.{name}: write --config.{name}=VALUE")
        _set(config, name, _literal(text))
    return freeze(config)


def find_recipe(recipe: str) -> Path:
    """The file of a recipe given as a path or as the name of a packaged one."""
    package = Path(__file__).parent
    folders = (package / "packaged" / "configs", package.parent / "configs")
    name = Path(recipe).name.removesuffix(".py") + ".py"
    for path in (Path(recipe), *(folder / name for folder in folders)):
        if path.is_file():
            return path
    known = sorted({p.stem for folder in folders for p in folder.glob("*.py")})
    raise LiditError(f"no recipe {recipe!r}: give a file, or one of {_quoted(known)}")


def _set(config: ml_collections.ConfigDict, path: str, value: Any) -> None:
    *parents, name = path.split(".")
    node = config
    for i, parent in enumerate([*parents, name]):
        fields = list(node) if isinstance(node, ml_collections.ConfigDict) else []
        if parent not in fields:
            here = ".".join(["config", *parents[:i]])
            close = difflib.get_close_matches(parent, fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {_quoted(fields)}"
            raise LiditError(f"{here} has no field {parent!r}: {hint}")
        if i < len(parents):
            node = node[parent]
    current = node[name]
    if isinstance(current, ml_collections.ConfigDict):
        raise LiditError(f"config.{path} is a group of fields: set one of {_quoted(list(current))}")
    if isinstance(current, float) and type(value) is int:
        value = float(value)
    if isinstance(current, str) and not isinstance(value, str):
        value = str(value)
    if type(value) is not type(current):
        raise LiditError(
            f"config.{path}={value!r} is {type(value).__name__}, "
            f"must be {type(current).__name__} (now {current!r})"
        )
    node[name] = value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text.lower(), text)


def _build(cls: type, values: dict[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    for name in values.keys() - known:
        raise LiditError(f"config.{prefix}{name} does not exist: it has {_quoted(sorted(known))}")
    built = {}
    for name, value in values.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            built[name] = _build(hint, value, f"{prefix}{name}.")
            continue
        if isinstance(hint, types.GenericAlias):
            item = typing.get_args(hint)[0]
            if not isinstance(value, (tuple, list)) or not all(isinstance(v, item) for v in value):
                raise LiditError(
                    f"config.{prefix}{name}={value!r} must be a tuple of {item.__name__}"
                )
            value = tuple(value)
        elif hint is float and type(value) is int:
            value = float(value)
        elif type(value) is not hint:
            raise LiditError(f"config.{prefix}{name}={value!r} must be {hint.__name__}")
        built[name] = value
    return cls(**built)


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
