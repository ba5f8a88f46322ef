"""Loader of Hugging Face folders: configuration and safetensors to a tree of JAX arrays.

Only safetensors are read; a pickled checkpoint could run code and is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
from jax.sharding import Sharding

from lidit_jax.errors import LiditError
from lidit_jax.io.progress import progress_bar
from lidit_jax.weights.mapped_tensors import list_tensors
from lidit_jax.weights.placement import first_names, plan_placements
from lidit_jax.weights.streaming import stream
from lidit_jax.weights.tables import Rule

_GIGABYTE = 10**9


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises `LiditError` when the file is missing or damaged."""
    if not path.is_file():
        raise LiditError(f"{path} is missing: give a Hugging Face model folder, or download again")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LiditError(f"{path} is not valid JSON ({error}): download it again") from error
    if not isinstance(content, dict):
        raise LiditError(f"{path} is not a JSON object: download it again")
    return content


def safetensors_files(folder: Path) -> list[Path]:
    """List the weight files of a folder, one or several shards.

    Raises:
      LiditError: when a shard is missing or outside the folder, or when there are only pickled
        weights.
    """
    if indices := sorted(folder.glob("*.safetensors.index.json")):
        return _indexed_files(folder, indices[0])
    if (single := folder / "model.safetensors").is_file():
        return [single]
    if files := sorted(folder.glob("*.safetensors")):
        return files
    kind = model_class(folder)
    raise LiditError(
        f"{folder} has no .safetensors file, and pickled weights are never opened: where PyTorch "
        f"is installed, write one with `from transformers import {kind}` and "
        f"`{kind}.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})`"
    )


def model_class(folder: Path) -> str:
    """Return the transformers class that a folder's `config.json` names, `AutoModel` if none."""
    config = folder / "config.json"
    named = read_json(config).get("architectures") if config.is_file() else None
    return str(named[0]) if isinstance(named, list) and named else "AutoModel"


def _indexed_files(folder: Path, index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise LiditError(f"{index} has no weight_map: download it again")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        # A path could point anywhere on this machine; only files in the folder are opened.
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise LiditError(
                f"{index} names {name!r}, which is not a .safetensors file of its folder: do not "
                "use this model"
            )
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise LiditError(f"{folder} lacks {first_names(missing)}: download the model again")
    return [folder / name for name in names]


def load_params(
    files: Iterable[Path],
    table: tuple[Rule, ...],
    shapes: dict[str, tuple[int, ...]],
    dtype: str,
    shardings: Mapping[str, Sharding] | None = None,
) -> dict[str, Any]:
    """Load the parameters in `shapes` into a nested dict of JAX arrays.

    Every tensor goes from the mapped file to its devices and is cast there: beside the result, the
    host holds a few tensors at a time.

    Args:
      files: safetensors files.
      table: rules from tensor names to parameters; the tensors of blocks are stacked.
      shapes: shape of every required parameter, by its path.
      dtype: type of the result; "int8" keeps linear maps as `Int8Weight` and the rest in bfloat16.
      shardings: sharding of each parameter, by its path; None for the default device.

    Raises:
      LiditError: when a file is damaged, when tensors are missing, unexpected or of the wrong type
        or shape (all of them in one message, before anything is allocated), or not finite.
    """
    placements = plan_placements(list_tensors(files), table, shapes)
    total = sum(place.tensor.nbytes for place in placements)
    label = f"loading {placements[0].tensor.file.parent.name}" if placements else ""
    with progress_bar(label) as report:
        reported = 0

        def progress(done: int) -> None:
            nonlocal reported
            if total >= _GIGABYTE and done // _GIGABYTE > reported:
                reported = done // _GIGABYTE
                report(reported, total // _GIGABYTE)

        params = stream(placements, shapes, dtype, shardings or {}, progress)
    return flax.traverse_util.unflatten_dict(params, sep="/")
