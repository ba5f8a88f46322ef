"""Parameter trees as flat dictionaries by path, such as "output/linear/kernel"."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import flax.traverse_util
import numpy as np

from lidit_jax.weights.path_patterns import selected


def by_path(tree: Any) -> dict[str, Any]:
    """Flatten nested dictionaries; the keys of the result are joined by slashes.

    Flax's own function is untyped, so that type checkers infer dictionaries for its leaves.
    """
    return flax.traverse_util.flatten_dict(tree, sep="/")


def split(tree: Any, patterns: Sequence[str]) -> tuple[Any, Any]:
    """Divide a parameter tree into the parameters that no pattern selects, and the others."""
    if not patterns:
        return tree, {}
    flat = by_path(tree)
    chosen = selected(patterns, flat)
    parts = (
        {path: leaf for path, leaf in flat.items() if (path in chosen) == inside}
        for inside in (False, True)
    )
    others, taken = (flax.traverse_util.unflatten_dict(part, sep="/") for part in parts)
    return others, taken


def merged(first: Any, second: Any) -> Any:
    """Return the tree of two parts of `split`."""
    if not second:
        return first
    return flax.traverse_util.unflatten_dict(by_path(first) | by_path(second), sep="/")


def fingerprint(tree: Any) -> str:
    """Return the sha256 of the parameters' paths and values."""
    digest = hashlib.sha256()
    for path, leaf in sorted(by_path(tree).items()):
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
