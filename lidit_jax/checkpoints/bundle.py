"""A model to give away: a folder with `config.json` and `model.safetensors`, checked on loading.

`config.json` holds the format number, the configuration of the run, what else sampling needs to
know (`metadata`, see `Provenance`) and the sha256 of the weights. Training state lives in Orbax
checkpoints instead.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import safetensors
import safetensors.numpy

from lidit_jax.checkpoints.migrations import FORMAT, migrate
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.checks import check
from lidit_jax.config.schema import Config
from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file
from lidit_jax.io.paths import in_bucket
from lidit_jax.weights.mapped_tensors import MappedTensor, list_tensors, map_file

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def is_bundle(folder: Path) -> bool:
    """Whether the folder looks like one of ours."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def save_bundle(
    folder: Path, params: Any, config: Config, provenance: Provenance, dtype: str = "float16"
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
    with atomic_file(folder / WEIGHTS) as file:
        file.write(data)
    save_description(folder, config, provenance, hashlib.sha256(data).hexdigest())


def save_description(folder: Path, config: Config, provenance: Provenance, sha256: str) -> None:
    """Writes `config.json` for the weights that are in the folder already.

    Args:
      folder: of the bundle.
      config: of the run.
      provenance: of the weights.
      sha256: of their file.
    """
    description = {
        "format": FORMAT,
        "config": config.to_dict(),
        "metadata": provenance.to_json(),
        "sha256": sha256,
    }
    with atomic_file(folder / CONFIG) as file:
        file.write(json.dumps(description, indent=2).encode())


class Bundle:
    """A folder that was opened: its description is read, its weights are not.

    Attributes:
      config: of the run.
      provenance: of the weights.
      fingerprint: sha256 of the weights' file.
    """

    def __init__(self, folder: Path):
        """Reads `config.json`.

        Raises:
          LiditError: when it is missing, damaged or of a newer format.
        """
        self._folder = folder
        with _reading(folder):
            description = migrate(json.loads((folder / CONFIG).read_text()), folder)
            self.fingerprint: str = description["sha256"]
            self.config = check(Config.from_dict(description["config"]))
            self.provenance = Provenance.from_json(description["metadata"])

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter by its path, from the file's header (in a bucket, the file)."""
        if in_bucket(self._folder):
            return {path: tensor.shape for path, tensor in self._tensors.items()}
        return {path: tensor.shape for path, tensor in self._header.items()}

    def read(self, path: str) -> np.ndarray:
        """One parameter, float32; read-only."""
        return self._tensors[path].astype(np.float32, copy=False)

    def load(self, shardings: Any = None) -> Any:
        """All parameters, nested, float32: one after the other where `shardings` has a place."""
        known = flax.traverse_util.flatten_dict(shardings or {}, sep="/")
        flat = {}
        for path, tensor in self._tensors.items():
            value = np.array(tensor, np.float32)
            flat[path] = jax.device_put(value, known[path]) if path in known else value
        return flax.traverse_util.unflatten_dict(flat, sep="/")

    @functools.cached_property
    def _header(self) -> dict[str, MappedTensor]:
        with _reading(self._folder):
            return {tensor.name: tensor for tensor in list_tensors([self._folder / WEIGHTS])}

    @functools.cached_property
    def _tensors(self) -> Mapping[str, np.ndarray]:
        """Views of the weights' file, once it has been proven to be the one described."""
        file = self._folder / WEIGHTS
        with _reading(self._folder):
            if in_bucket(file):  # an object has no pages to map
                data = file.read_bytes()
                self._verify(file, hashlib.sha256(data).hexdigest())
                return safetensors.numpy.load(data)
            with file.open("rb") as stream:
                self._verify(file, hashlib.file_digest(stream, "sha256").hexdigest())
            mapped = map_file(file)
            return {path: tensor.view(mapped) for path, tensor in self._header.items()}

    def _verify(self, file: Path, digest: str) -> None:
        if digest != self.fingerprint:
            raise LiditError(
                f"{file} is damaged: its sha256 is not the one in {CONFIG}; copy the folder again"
            )


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Says what is wrong with a folder in one line."""
    try:
        yield
    except OSError as error:
        raise LiditError(f"{folder} is not a model folder: cannot read {error.filename}") from error
    except (KeyError, ValueError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise LiditError(f"{folder} is damaged ({error}): copy the folder again") from error
