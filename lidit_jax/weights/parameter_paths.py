"""Parameters by their path, such as "output/linear/kernel"."""

from __future__ import annotations

from typing import Any

import flax.traverse_util


def by_path(tree: Any) -> dict[str, Any]:
    """Flattens nested dictionaries; the keys of the result are joined by slashes.

    Flax's own function has no types, so that checkers take its leaves for dictionaries.
    """
    return flax.traverse_util.flatten_dict(tree, sep="/")
