"""Parameter trees as flat dictionaries by path, such as "output/linear/kernel"."""

from __future__ import annotations

from typing import Any

import flax.traverse_util


def by_path(tree: Any) -> dict[str, Any]:
    """Flatten nested dictionaries; the keys of the result are joined by slashes.

    Flax's own function is untyped, so that type checkers infer dictionaries for its leaves.
    """
    return flax.traverse_util.flatten_dict(tree, sep="/")
