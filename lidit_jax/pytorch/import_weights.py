"""Import of an exported PyTorch folder back into a bundle, bit-exact and verified.

The folder's manifest has the sha256 of each tensor, so that an error names the one that was changed
or swapped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lidit_jax.checkpoints.bundle import save_description
from lidit_jax.checkpoints.migrations import migrate
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.checkpoints.shapes import compare_shapes, parameter_shapes
from lidit_jax.config.checks import check
from lidit_jax.config.schema import Config
from lidit_jax.errors import LiditError
from lidit_jax.pytorch.export import FORMAT as EXPORT_FORMAT
from lidit_jax.pytorch.export import MANIFEST
from lidit_jax.pytorch.layout import from_torch, torch_names
from lidit_jax.weights.gguf import file_sha256
from lidit_jax.weights.huggingface import safetensors_files
from lidit_jax.weights.mapped_tensors import MappedTensor, list_tensors, map_file
from lidit_jax.weights.placement import first_names
from lidit_jax.weights.tensor_writer import TensorSpec, digest_of, write_tensors

_UNTRUSTED = "export it again with `lidit convert to-torch`"


def import_torch(folder: Path, bundle: Path) -> None:
    """Write the bundle that `folder` was exported from, in float32.

    Args:
      folder: written by `export_torch`.
      bundle: an existing folder.

    Raises:
      LiditError: when a file is missing or damaged, or when a tensor was changed, swapped, added or
        removed; names it.
    """
    manifest = _read(folder / MANIFEST)
    tensors = {tensor.name: tensor for tensor in list_tensors(safetensors_files(folder))}
    _compare_with_manifest(folder, tensors, manifest)
    _check_files(folder, manifest)
    exported = _read(folder / "config.json")
    try:
        description = migrate(exported["lidit"], folder)
        config = check(Config.from_dict(description["config"]))
        provenance = Provenance.from_json(description["metadata"])
        widths = [stream["width"] for stream in exported["streams"]]
        counts = provenance.layer_counts
        shapes = parameter_shapes(config.model, widths, exported["channels"], counts)
    except (KeyError, TypeError, ValueError) as error:
        raise LiditError(f"{folder / 'config.json'} is damaged ({error}): {_UNTRUSTED}") from error
    places = {path: torch_names(path, shape) for path, shape in shapes.items()}
    wanted = {name for names in places.values() for name in names}
    if wanted != tensors.keys():
        odd = sorted(wanted ^ tensors.keys())
        raise LiditError(f"{folder} does not fit its config.json: see {first_names(odd)}")
    mapped = {file: map_file(file) for file in {tensor.file for tensor in tensors.values()}}

    def pieces() -> Iterator[np.ndarray]:
        for path, names in places.items():
            for name in names:
                array = tensors[name].view(mapped[tensors[name].file])
                if digest_of(array) != manifest["tensors"][name]["sha256"]:
                    raise LiditError(
                        f"{tensors[name].file}: {name} is not the exported tensor (its "
                        f"sha256 differs from {MANIFEST}): {_UNTRUSTED}"
                    )
                yield from_torch(path, array.astype(np.float32), config.model)

    specs = [TensorSpec(path, shape, "float32") for path, shape in shapes.items()]
    _, digest = write_tensors(bundle / "model.safetensors", specs, pieces())
    if (folder / "vae").is_dir():
        shutil.copytree(folder / "vae", bundle / "vae", dirs_exist_ok=True)
    save_description(bundle, config, provenance, digest)


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise LiditError(
            f"{file} is missing: name a folder that `lidit convert to-torch` wrote; pickled "
            "weights and other models are not read"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] > EXPORT_FORMAT:
            raise LiditError(
                f"{file} has format {content['format']}, newer than this version's "
                f"{EXPORT_FORMAT}: upgrade lidit-jax"
            )
    except (ValueError, KeyError, TypeError) as error:
        raise LiditError(f"{file} is damaged ({error}): {_UNTRUSTED}") from error
    return content


def _compare_with_manifest(
    folder: Path, tensors: dict[str, MappedTensor], manifest: dict[str, Any]
) -> None:
    """Check names, shapes and types of the tensors; values are checked while they are read."""
    try:
        expected = {
            name: (tuple(entry["shape"]), entry["dtype"], entry["sha256"])
            for name, entry in manifest["tensors"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise LiditError(f"{folder / MANIFEST} is damaged ({error}): {_UNTRUSTED}") from error
    compare_shapes(
        str(folder),
        {name: shape for name, (shape, _, _) in expected.items()},
        {name: tensor.shape for name, tensor in tensors.items()},
    )
    for name, (_, dtype, _) in expected.items():
        if tensors[name].kind != dtype:
            raise LiditError(
                f"{tensors[name].file}: {name} is {tensors[name].kind}, was exported as {dtype}: "
                f"{_UNTRUSTED}"
            )


def _check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Check the configuration and the autoencoder's files, which are copied to the bundle."""
    for file in (folder / "config.json", *sorted((folder / "vae").glob("*"))):
        name = file.relative_to(folder).as_posix()
        if not file.is_file() or file_sha256(file) != manifest.get("files", {}).get(name):
            raise LiditError(f"{file} is not the exported file (see {MANIFEST}): {_UNTRUSTED}")
