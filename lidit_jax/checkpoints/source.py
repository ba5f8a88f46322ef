"""The parameters of a trained model, one at a time: converting never holds the whole of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import flax.traverse_util
import numpy as np

from lidit_jax.checkpoints.bundle import is_bundle
from lidit_jax.checkpoints.migrations import migrate
from lidit_jax.checkpoints.saved_model import model_folder, open_workdir
from lidit_jax.config.load import config_from_json
from lidit_jax.config.schema import Config, ModelConfig
from lidit_jax.errors import LiditError
from lidit_jax.weights.mapped_tensors import list_tensors, map_file
from lidit_jax.weights.placement import shortened


class Source(Protocol):
    """A trained model on disk.

    Attributes:
      folder: where it is.
      config: of its run.
      metadata: what it remembers beside: encoders, crop, moments of the latents, step.
      shapes: of every parameter, by its path.
    """

    folder: Path
    config: Config
    metadata: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    def read(self, path: str) -> np.ndarray:
        """One parameter, float32 or narrower."""


def open_source(checkpoint: str | Path, *, raw: bool = False) -> Source:
    """Opens "demo", an exported folder, a workdir's newest checkpoint or one of the others.

    Args:
      checkpoint: name or path.
      raw: the raw weights of a workdir instead of their moving average.

    Raises:
      LiditError: when there is no such checkpoint, it is damaged, or has no raw weights.
    """
    folder = model_folder(checkpoint)
    if not is_bundle(folder):
        return _Workdir(folder, raw)
    if raw:
        raise LiditError(f"{folder} holds averaged weights only: leave out --raw")
    return _Bundle(folder)


class _Bundle:
    """A folder of `lidit export`: one safetensors file, read where it lies."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            description = migrate(json.loads((folder / "config.json").read_text()), folder)
            self.config = config_from_json(json.dumps(description["config"]))
            self.metadata = description["metadata"]
            expected = description["sha256"]
        except (KeyError, ValueError, TypeError) as error:
            raise LiditError(f"{folder} is damaged ({error}): copy the folder again") from error
        file = folder / "model.safetensors"
        with file.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != expected:
                raise LiditError(
                    f"{file} is damaged: its sha256 is not the one in config.json; copy the folder "
                    "again"
                )
        self._tensors = {tensor.name: tensor for tensor in list_tensors([file])}
        self._mapped = map_file(file)
        self.shapes = {name: tensor.shape for name, tensor in self._tensors.items()}

    def read(self, path: str) -> np.ndarray:
        return self._tensors[path].view(self._mapped)


class _Workdir:
    """A checkpoint of `lidit train`, sharded or not: Orbax restores one array at a time."""

    def __init__(self, workdir: Path, raw: bool):
        import orbax.checkpoint as ocp

        self._name = "params" if raw else "ema_params"
        checkpoints, step = open_workdir(workdir)
        with checkpoints:
            self.metadata = checkpoints.metadata(step) | {"step": step}
            self.folder = checkpoints.folder / str(step)
        self.config = config_from_json(json.dumps(self.metadata.pop("config")))
        self._checkpointer = ocp.PyTreeCheckpointer()
        found = self._checkpointer.metadata(self.folder / "state").item_metadata
        if found is None:
            raise LiditError(f"checkpoint {self.folder} is damaged: name another one")
        leaves = flax.traverse_util.flatten_dict(found.tree[self._name], sep="/")
        self._leaves = leaves
        self.shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}

    def read(self, path: str) -> np.ndarray:
        import jax
        import orbax.checkpoint as ocp

        place = (self._name, *path.split("/"))

        def tree(leaf: Any) -> dict[str, Any]:
            return flax.traverse_util.unflatten_dict({place: leaf})

        stored = self._leaves[path]
        arguments = ocp.args.PyTreeRestore(
            item=tree(jax.ShapeDtypeStruct(stored.shape, stored.dtype)),
            restore_args=tree(ocp.RestoreArgs(restore_type=np.ndarray)),
            partial_restore=True,
        )
        try:
            restored = self._checkpointer.restore(self.folder / "state", args=arguments)
        except (ValueError, KeyError, OSError, TypeError) as error:
            raise LiditError(
                f"checkpoint {self.folder} is damaged: {path} cannot be read; name another one"
            ) from error
        return flax.traverse_util.flatten_dict(restored)[place]


def parameter_shapes(
    config: ModelConfig, feature_widths: Sequence[int], channels: int
) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter of `LIDiT(config)`, by its path; nothing is allocated.

    Args:
      config: of the network.
      feature_widths: width D_k of each stream's features.
      channels: latent channels C.
    """
    import flax.linen as nn

    from lidit_jax.models.abstract_inputs import abstract_parameters
    from lidit_jax.models.flops import TextStream
    from lidit_jax.models.lidit import LIDiT

    streams = [TextStream(width, tokens=1, crop=0) for width in feature_widths]
    params = nn.unbox(abstract_parameters(LIDiT(config), streams, channels))
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}


def check_shapes(source: Source) -> None:
    """Proves that a checkpoint has exactly the parameters of its configuration.

    Raises:
      LiditError: names what is missing, unexpected or of another shape.
    """
    config, found = source.config.model, source.shapes
    try:
        widths = [
            found[f"linguistic_refiner_{k}/projection/kernel"][0]
            for k in range(len(source.metadata["encoders"]))
        ]
        channels = found["patch_embedder/kernel"][0] // config.patch**2
    except KeyError as error:
        raise LiditError(f"{source.folder} lacks the parameter {error}: copy it again") from error
    compare_shapes(str(source.folder), parameter_shapes(config, widths, channels), found)


def compare_shapes(
    place: str, wanted: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]
) -> None:
    """Raises `LiditError` with all names that differ."""
    problems = {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
        "of the wrong shape": [
            f"{name} is {list(found[name])}, not {list(shape)}"
            for name, shape in wanted.items()
            if name in found and tuple(found[name]) != tuple(shape)
        ],
    }
    if any(problems.values()):
        text = "; ".join(
            f"{len(names)} {kind}: {shortened(names)}" for kind, names in problems.items() if names
        )
        raise LiditError(f"{place} does not fit its configuration: {text}")
