"""Mapping of checkpoint tensors to parameters, validated before any tensor is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lidit_jax.errors import LiditError
from lidit_jax.weights.mapped_tensors import MappedTensor
from lidit_jax.weights.tables import Rule

_SHOWN = 5
# Transposes from a checkpoint's tensor to our parameter. PyTorch keeps a linear map as [out, in]
# and a convolution as [out, in, height, width].
_AXES = {"transpose": (1, 0), "conv": (2, 3, 1, 0)}


@dataclass(frozen=True)
class TensorPlacement:
    """One tensor and the parameter, or block of one, that it fills."""

    tensor: MappedTensor
    path: str
    """Path of the parameter that it fills, or of which it is one block."""
    index: int | None
    """Index of the block on the parameter's first axis; None fills all of it."""
    transform: str

    def arrange(self, values: np.ndarray) -> np.ndarray:
        """Return a view of the tensor's values with the parameter's axes, block axis included."""
        values = values.transpose(_AXES[self.transform]) if self.transform else values
        return values if self.index is None else values[None]


def plan_placements(
    tensors: Iterable[MappedTensor], table: tuple[Rule, ...], shapes: dict[str, tuple[int, ...]]
) -> list[TensorPlacement]:
    """Return a placement for every required tensor, in the order of the files.

    Args:
      tensors: those of the checkpoint.
      table: rules from tensor names to parameters; the tensors of blocks are stacked.
      shapes: shape of every required parameter, by its path.

    Raises:
      LiditError: when tensors are missing, unexpected, given twice, of the wrong type or of the
        wrong shape: all of them in one message.
    """
    tensors = list(tensors)
    placements: dict[tuple[str, int | None], TensorPlacement] = {}
    problems: dict[str, list[str]] = {
        kind: []
        for kind in (
            "missing",
            "unexpected",
            "given twice",
            "of the wrong type",
            "of the wrong shape",
        )
    }
    for tensor in tensors:
        rule, index = _match(tensor.name, table)
        if rule is None:
            problems["unexpected"].append(tensor.name)
            continue
        target = rule.target
        if target is None:
            continue
        wanted = _wanted(target, rule.transform, index, shapes)
        if wanted is None:
            problems["unexpected"].append(tensor.name)
            continue
        if (target, index) in placements:
            problems["given twice"].append(tensor.name)
        if not tensor.is_float:
            problems["of the wrong type"].append(f"{tensor.name} is {tensor.kind}, not a float")
        if tensor.shape != wanted:
            problems["of the wrong shape"].append(
                f"{tensor.name} is {list(tensor.shape)}, not {list(wanted)}"
            )
        placements[target, index] = TensorPlacement(tensor, target, index, rule.transform)
    problems["missing"] = [
        path if index is None else f"{path}[{index}]"
        for path, shape in shapes.items()
        for index in (range(shape[0]) if path.startswith("layers/") else [None])
        if (path, index) not in placements
    ]
    if any(problems.values()):
        text = "; ".join(
            f"{len(names)} {kind}: {first_names(names)}"
            for kind, names in problems.items()
            if names
        )
        folder = tensors[0].file.parent if tensors else "the checkpoint"
        raise LiditError(f"{folder} does not fit its config.json: {text}")
    return list(placements.values())


def first_names(names: list[str]) -> str:
    """Format the first few names, and the number of the others."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _match(name: str, table: tuple[Rule, ...]) -> tuple[Rule | None, int | None]:
    for rule in table:
        if match := rule.pattern.fullmatch(name):
            return rule, int(match[1]) if rule.pattern.groups else None
    return None, None


def _wanted(
    target: str, transform: str, index: int | None, shapes: dict[str, tuple[int, ...]]
) -> tuple[int, ...] | None:
    """Return the shape that a tensor must have in the checkpoint; None if it is unexpected."""
    if target not in shapes:
        return None
    shape = shapes[target]
    if index is not None:
        if index >= shape[0]:
            return None
        shape = shape[1:]
    if not transform:
        return shape
    axes = _AXES[transform]
    return tuple(shape[axes.index(axis)] for axis in range(len(axes)))
