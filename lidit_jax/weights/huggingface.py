"""Hugging Face folders: configuration and safetensors in, a tree of JAX arrays out.

Only safetensors are read; a pickled checkpoint could run code and is refused.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes  # noqa: F401  (teaches numpy, and so safetensors, the name "bfloat16")
import numpy as np
import safetensors

from lidit_jax.errors import LiditError
from lidit_jax.weights.tables import Rule

_SHOWN = 5
# Axes of a checkpoint's tensor in the order of ours. PyTorch keeps a linear map as [out, in] and a
# convolution as [out, in, height, width].
_AXES = {"transpose": (1, 0), "conv": (2, 3, 1, 0)}


class Source(NamedTuple):
    """One tensor of a checkpoint, not yet read."""

    file: Path
    shape: tuple[int, ...]


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json`; of a LLaVA-style model the part about its language model.

    Raises:
      LiditError: when the file is missing or damaged.
    """
    config = read_json(folder / "config.json")
    if "text_config" not in config:
        return config
    # Such checkpoints write only what differs from the defaults, which transformers knows.
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder).get_text_config().to_dict()
    except ValueError as error:
        raise LiditError(f"{folder / 'config.json'} is not understood ({error})") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `LiditError` when the file is missing or damaged."""
    if not path.is_file():
        raise LiditError(f"{path} is missing: give a Hugging Face model folder, or download again")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LiditError(f"{path} is not valid JSON ({error}): download it again") from error


def safetensors_files(folder: Path) -> list[Path]:
    """The weight files of a folder, one or several shards.

    Raises:
      LiditError: when a shard is missing, or when there are only pickled weights.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted({folder / name for name in read_json(index)["weight_map"].values()})
        if missing := [shard.name for shard in shards if not shard.is_file()]:
            raise LiditError(f"{folder} lacks {_list(missing)}: download the model again")
        return shards
    if files := sorted(folder.glob("*.safetensors")):
        return files
    raise LiditError(
        f"{folder} has no .safetensors file: pickled weights are never opened, "
        "save the model with save_pretrained(..., safe_serialization=True)"
    )


def load_params(
    files: Iterable[Path], table: tuple[Rule, ...], shapes: dict[str, tuple[int, ...]], dtype: str
) -> dict[str, Any]:
    """Reads the tensors that `shapes` asks for into a nested dict of JAX arrays.

    Args:
      files: safetensors files.
      table: where each tensor goes; the tensors of blocks are stacked.
      shapes: shape of every wanted parameter, by its path.
      dtype: type of the result.

    Raises:
      LiditError: when a file is damaged, or when tensors are missing, unexpected or of the wrong
        shape: all of them in one message, before anything is allocated.
    """
    sources = dict(_headers(files))
    plan = _plan(sources, table, shapes)
    params: dict[str, Any] = {}
    with _Tensors() as tensors:
        for path, shape in shapes.items():
            array = np.empty(shape, jnp.dtype(dtype))
            for index, (name, transform) in plan[path].items():
                value = tensors.read(sources[name].file, name)
                array[index] = value.transpose(_AXES[transform]) if transform else value
            *parents, leaf = path.split("/")
            node = params
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = jax.device_put(array)
    return params


def _headers(files: Iterable[Path]) -> Iterator[tuple[str, Source]]:
    for file in files:
        with _open(file) as handle:
            for name in handle.keys():  # noqa: SIM118  (a safetensors handle is no dict)
                yield name, Source(file, tuple(handle.get_slice(name).get_shape()))


def _plan(
    sources: dict[str, Source], table: tuple[Rule, ...], shapes: dict[str, tuple[int, ...]]
) -> dict[str, dict[Any, tuple[str, str]]]:
    """For each parameter its tensors, by the index they fill; `...` fills all of it."""
    plan: dict[str, dict[Any, tuple[str, str]]] = {path: {} for path in shapes}
    unexpected, misshaped = [], []
    for name, source in sources.items():
        rule, index = _match(name, table)
        if rule is None or (rule.target is not None and rule.target not in shapes):
            unexpected.append(name)
            continue
        if rule.target is None:
            continue
        wanted = shapes[rule.target]
        if index is not ...:
            if index >= wanted[0]:
                unexpected.append(name)
                continue
            wanted = wanted[1:]
        if axes := _AXES.get(rule.transform):
            wanted = tuple(wanted[axes.index(axis)] for axis in range(len(axes)))
        if source.shape != wanted:
            misshaped.append(f"{name} is {list(source.shape)}, not {list(wanted)}")
        plan[rule.target][index] = (name, rule.transform)
    missing = [
        path if index is ... else f"{path}[{index}]"
        for path, shape in shapes.items()
        for index in (range(shape[0]) if path.startswith("layers/") else [...])
        if index not in plan[path]
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of the wrong shape": misshaped}
    if any(problems.values()):
        text = "; ".join(f"{len(v)} {kind}: {_list(v)}" for kind, v in problems.items() if v)
        folder = next(iter(sources.values())).file.parent if sources else "the checkpoint"
        raise LiditError(f"{folder} does not fit its config.json: {text}")
    return plan


def _match(name: str, table: tuple[Rule, ...]) -> tuple[Rule | None, Any]:
    for rule in table:
        if match := rule.pattern.fullmatch(name):
            return rule, int(match[1]) if rule.pattern.groups else ...
    return None, ...


class _Tensors(contextlib.ExitStack):
    """Keeps each shard open while its tensors are read."""

    def __init__(self) -> None:
        super().__init__()
        self._handles: dict[Path, Any] = {}

    def read(self, file: Path, name: str) -> np.ndarray:
        if file not in self._handles:
            self._handles[file] = self.enter_context(_open(file))
        return self._handles[file].get_tensor(name)


def _open(file: Path) -> Any:
    try:
        return safetensors.safe_open(file, framework="numpy")
    except (safetensors.SafetensorError, OSError) as error:
        raise LiditError(
            f"{file} is truncated or damaged ({error}): delete it and download it again"
        ) from error


def _list(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
