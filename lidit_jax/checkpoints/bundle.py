"""Read and write exported models: a folder with `config.json` and `model.safetensors`, verified.

The weights may be split into several files instead, `model-00001-of-00003.safetensors` and so on,
with a `model.safetensors.index.json` that maps tensors to files, as on the Hugging Face hub.
`config.json` holds the format number, the configuration of the run, the other facts that sampling
requires (`metadata`, see `Provenance`) and the sha256 of the weights. Training state is stored in
Orbax checkpoints instead.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
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
from lidit_jax.weights.parameter_paths import by_path
from lidit_jax.weights.tensor_writer import TensorSpec, shard_names, shards, write_tensors

WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"
_HEADER_BYTES = 512
"""Upper bound on a safetensors header, in bytes per tensor."""


def is_bundle(folder: Path) -> bool:
    """Return whether the folder has the files of an exported model."""
    weights = (folder / name for name in (WEIGHTS, INDEX))
    return (folder / CONFIG).is_file() and any(file.is_file() for file in weights)


def weight_files(folder: Path) -> list[Path]:
    """List a bundle's weight files, in order.

    Raises:
      OSError: when there are none.
    """
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [folder / WEIGHTS]
    places = json.loads((folder / INDEX).read_text())["weight_map"]
    return [folder / name for name in sorted(set(places.values()))]


def save_bundle(
    folder: Path,
    params: Any,
    config: Config,
    provenance: Provenance,
    dtype: str = "float16",
    largest_file: int = 0,
) -> None:
    """Write a bundle; `config.json`, which makes it valid, is written last.

    Args:
      folder: where to write; weights already there are replaced.
      params: nested parameters.
      config: the run's configuration.
      provenance: the weights' provenance.
      dtype: type in which the weights are written.
      largest_file: maximum bytes per weight file; 0 for a single file of any size.

    Raises:
      LiditError: when a weight is not finite in `dtype`, or larger than a file may be.
    """
    flat = by_path(jax.tree.map(np.asarray, params))
    with np.errstate(over="ignore"):  # reported below, by name
        tensors = {name: np.ascontiguousarray(value.astype(dtype)) for name, value in flat.items()}
    broken = [name for name, value in tensors.items() if not np.isfinite(value).all()]
    if broken:
        raise LiditError(f"{broken[0]} and {len(broken) - 1} more are not finite in {dtype}")
    folder.mkdir(parents=True, exist_ok=True)
    digests = _write_weights(folder, tensors, dtype, largest_file)
    save_description(folder, config, provenance, _fingerprint(digests))


def _write_weights(
    folder: Path, tensors: Mapping[str, np.ndarray], dtype: str, largest: int
) -> list[str]:
    """Write one weight file, or several and their index; return the sha256 of each."""
    specs = [TensorSpec(name, value.shape, dtype) for name, value in sorted(tensors.items())]
    room = largest - _HEADER_BYTES * len(specs) if largest else sum(s.nbytes for s in specs)
    for spec in specs:
        if spec.nbytes > room:
            raise LiditError(
                f"{spec.name} alone has {spec.nbytes / 2**20:.1f} MiB, more than a file of "
                f"{largest / 2**20:g} MiB can hold: allow larger files"
            )
    files = shards(specs, room)
    names = shard_names(len(files))
    digests = []
    for name, held in zip(names, files, strict=True):
        values = (tensors[spec.name] for spec in held)
        digests.append(write_tensors(folder / name, held, values)[1])
    if not in_bucket(folder):
        for other in {*folder.glob("model*.safetensors"), folder / INDEX}:
            if other.name not in names:  # left from an earlier export split differently
                other.unlink(missing_ok=True)
    if len(names) > 1:
        size = sum(spec.nbytes for spec in specs)
        places = {s.name: name for name, held in zip(names, files, strict=True) for s in held}
        with atomic_file(folder / INDEX) as file:
            file.write(
                json.dumps(
                    {"metadata": {"total_size": size}, "weight_map": places}, indent=2
                ).encode()
            )
    return digests


def _fingerprint(digests: Sequence[str]) -> str:
    """Return the sha256 of a single file or, for several files, of their concatenated digests."""
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def save_description(folder: Path, config: Config, provenance: Provenance, sha256: str) -> None:
    """Write `config.json` for the weights that are already in the folder.

    Args:
      folder: folder of the bundle.
      config: the run's configuration.
      provenance: the weights' provenance.
      sha256: fingerprint of the weights.
    """
    description = {
        "format": FORMAT,
        "config": config.to_dict(),
        "metadata": provenance.to_json(),
        "sha256": sha256,
    }
    with atomic_file(folder / CONFIG) as file:
        file.write(json.dumps(description, indent=2).encode())


def public_description(text: str) -> str:
    """Return a `config.json` for others: of local absolute paths only the last component remains.

    Hub ids, names of packaged encoders and relative paths stay, and so does a file that is not a
    bundle's but for the name under which diffusers remembers a folder.

    Raises:
      ValueError: when it is not JSON.
    """
    description = json.loads(text)
    parts = [(description, "_name_or_path")]
    if isinstance(config := description.get("config"), dict):
        named = (("data", "path"), ("data", "mixture"), ("data", "cache_dir"), ("vae", "source"))
        named += (("encoders", "sources"), ("training", "init_from"))
        named += (("training", "local_checkpoints"),)
        parts += [(config.get(section), name) for section, name in named]
        parts += [(one, "source") for one in description.get("metadata", {}).get("encoders", ())]
    for part, name in parts:
        if isinstance(part, dict) and name in part:
            part[name] = _public(part[name])
    return json.dumps(description, indent=2)


def _public(value: Any) -> Any:
    """Shorten one path, those of a list, or that of a source "FORMAT:PATH"."""
    if isinstance(value, list):
        return [_public(one) for one in value]
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"((?:\w+:)?)(?:file://)?(~.*|/(?!/).*|///.*)", value, re.DOTALL)
    return found[1].removesuffix("file:") + Path(found[2]).name if found else value


class Bundle:
    """Opened bundle, of which the description is read and the weights are not.

    Attributes:
      config: the run's configuration.
      provenance: the weights' provenance.
      fingerprint: sha256 of the weights.
    """

    def __init__(self, folder: Path):
        """Read `config.json`.

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
        """Shape of every parameter by its path; in a bucket this reads the whole file."""
        if in_bucket(self._folder):
            return {path: tensor.shape for path, tensor in self._tensors.items()}
        return {path: tensor.shape for path, tensor in self._header.items()}

    def read(self, path: str) -> np.ndarray:
        """Return one parameter as a read-only float32 array."""
        return self._tensors[path].astype(np.float32, copy=False)

    def load(self, shardings: Any = None, *, partly: bool = False) -> Any:
        """Load all parameters, nested, in float32, each placed as `shardings` specifies.

        With `partly`, those without a sharding are left out.
        """
        known = by_path(shardings or {})
        flat = {}
        for path, tensor in self._tensors.items():
            if partly and path not in known:
                continue
            value = np.array(tensor, np.float32)
            flat[path] = jax.device_put(value, known[path]) if path in known else value
        return flax.traverse_util.unflatten_dict(flat, sep="/")

    @functools.cached_property
    def _header(self) -> dict[str, MappedTensor]:
        with _reading(self._folder):
            return {tensor.name: tensor for tensor in list_tensors(weight_files(self._folder))}

    @functools.cached_property
    def _tensors(self) -> Mapping[str, np.ndarray]:
        """Views of the weights, after their sha256 has been verified."""
        with _reading(self._folder):
            files = weight_files(self._folder)
            if in_bucket(self._folder):  # objects in a bucket cannot be memory-mapped
                contents = [file.read_bytes() for file in files]
                self._verify(files, [hashlib.sha256(data).hexdigest() for data in contents])
                loaded = [safetensors.numpy.load(data) for data in contents]
                return {path: value for part in loaded for path, value in part.items()}
            self._verify(files, [_digest(file) for file in files])
            mapped = {file: map_file(file) for file in files}
            return {path: tensor.view(mapped[tensor.file]) for path, tensor in self._header.items()}

    def _verify(self, files: Sequence[Path], digests: Sequence[str]) -> None:
        if _fingerprint(digests) != self.fingerprint:
            which = files[0] if len(files) == 1 else f"one of {files[0]} and so on"
            raise LiditError(
                f"{which} is damaged: its sha256 is not the one in {CONFIG}; copy the folder again"
            )


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Convert errors of reading a folder into a one-line `LiditError`."""
    try:
        yield
    except OSError as error:
        raise LiditError(f"{folder} is not a model folder: cannot read {error.filename}") from error
    except (KeyError, ValueError, TypeError, AttributeError, safetensors.SafetensorError) as error:
        raise LiditError(f"{folder} is damaged ({error}): copy the folder again") from error
