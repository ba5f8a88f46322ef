"""Map parameter paths of autoencoders to the tensor names in diffusers' files.

Both autoencoders name their modules as diffusers does, so one set of patterns serves all:
`encoder/down_blocks_0/resnets_1/norm1/scale` is `encoder.down_blocks.0.resnets.1.norm1.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from lidit_jax.weights.tables import Rule

_NAMES: tuple[tuple[str, str], ...] = (
    (r"/", "."),
    (r"_(\d+)(?=\.)", r".\1"),
    (r"\.(?:kernel|scale)$", ".weight"),
)
"""Patterns and replacements, applied in order."""

# Files from before diffusers 0.18, such as Stable Diffusion 1.5's, use these names.
_FORMER_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
_TRANSFORMS = {2: "transpose", 4: "conv"}


def diffusers_name(path: str) -> str:
    """Return the name of a parameter's tensor in diffusers' files."""
    for pattern, replacement in _NAMES:
        path = re.sub(pattern, replacement, path)
    return path


def diffusers_table(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Rule, ...]:
    """Return the rules that map diffusers' tensors to parameters.

    Args:
      shapes: shape of each parameter, by its path.
    """
    return tuple(
        Rule(re.compile(_pattern(path)), path, _TRANSFORMS.get(len(shape), ""))
        for path, shape in shapes.items()
    )


def to_diffusers(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Convert parameters by path to diffusers' tensors by name, in float32: the inverse mapping."""
    tensors = {}
    for path, value in params.items():
        value = np.asarray(value, np.float32)
        axes = {2: (1, 0), 4: (3, 2, 0, 1)}.get(value.ndim)
        value = value.transpose(axes) if axes else value
        tensors[diffusers_name(path)] = np.ascontiguousarray(value)
    return tensors


def _pattern(path: str) -> str:
    pattern = re.escape(diffusers_name(path))
    for name, former in _FORMER_NAMES.items():
        name = re.escape(name)
        pattern = pattern.replace(f"{name}\\.", f"(?:{name}|{former})\\.")
    return pattern
