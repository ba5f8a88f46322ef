"""A model to give away: a folder with `config.json` and `model.safetensors`, checked on loading.

`config.json` holds the format number, the configuration of the run, what else sampling needs to
know (`metadata`) and the sha256 of the weights. Training state lives in Orbax checkpoints instead.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import safetensors
import safetensors.numpy

from lidit_jax.checkpoints.migrations import FORMAT, migrate
from lidit_jax.config.load import config_from_json
from lidit_jax.config.schema import Config
from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Bundle:
    """A loaded folder."""

    params: Any
    """Nested parameters, float32."""
    config: Config
    metadata: dict[str, Any]
    fingerprint: str
    """sha256 of the weights file."""


def is_bundle(folder: Path) -> bool:
    """Whether the folder looks like one of ours."""
    return (folder / _CONFIG).is_file() and (folder / _WEIGHTS).is_file()


def save_bundle(
    folder: Path, params: Any, config: Config, metadata: dict[str, Any], dtype: str = "float16"
) -> None:
    """Writes a folder; `config.json` comes last and makes it valid.

    Raises:
      LiditError: when a weight is not finite in `dtype`.
    """
    flat = flax.traverse_util.flatten_dict(jax.tree.map(np.asarray, params), sep="/")
    with np.errstate(over="ignore"):  # told below, by name
        tensors = {name: np.ascontiguousarray(value.astype(dtype)) for name, value in flat.items()}
    broken = [name for name, value in tensors.items() if not np.isfinite(value).all()]
    if broken:
        raise LiditError(f"{broken[0]} and {len(broken) - 1} more are not finite in {dtype}")
    folder.mkdir(parents=True, exist_ok=True)
    data = safetensors.numpy.save(tensors)
    with atomic_file(folder / _WEIGHTS) as file:
        file.write(data)
    description = {
        "format": FORMAT,
        "config": json.loads(config.to_json()),
        "metadata": metadata,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    with atomic_file(folder / _CONFIG) as file:
        file.write(json.dumps(description, indent=2).encode())


def describe_bundle(folder: Path) -> tuple[Config, dict[str, Any]]:
    """Configuration and metadata; the weights are not read.

    Raises:
      LiditError: when `config.json` is missing or damaged.
    """
    with _reading(folder):
        description = _description(folder)
        return config_from_json(json.dumps(description["config"])), description["metadata"]


def load_bundle(folder: Path) -> Bundle:
    """Reads and checks a folder.

    Raises:
      LiditError: when a file is missing, truncated or not the one that `config.json` describes.
    """
    with _reading(folder):
        description = _description(folder)
        data = (folder / _WEIGHTS).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest != description["sha256"]:
            raise LiditError(
                f"{folder / _WEIGHTS} is damaged: its sha256 is not the one in {_CONFIG}; copy the "
                "folder again"
            )
        tensors = safetensors.numpy.load(data)
        config = config_from_json(json.dumps(description["config"]))
        metadata = description["metadata"]
    flat = {name: value.astype(np.float32) for name, value in tensors.items()}
    params = flax.traverse_util.unflatten_dict(flat, sep="/")
    return Bundle(params, config, metadata, digest)


def _description(folder: Path) -> dict[str, Any]:
    return migrate(json.loads((folder / _CONFIG).read_text()), folder)


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Says what is wrong with a folder in one line."""
    try:
        yield
    except OSError as error:
        raise LiditError(f"{folder} is not a model folder: cannot read {error.filename}") from error
    except (KeyError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise LiditError(f"{folder} is damaged ({error}): copy the folder again") from error
