"""From the descriptions that older versions stored to today's: one function a format.

Checkpoints and exported folders both hold a description: a format number, the configuration of the
run, and what else sampling needs to know. A change that would make an old description unreadable
raises `FORMAT` and adds the step from the format before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lidit_jax.errors import LiditError

FORMAT = 2
Description = dict[str, Any]


def migrate(description: Description, place: Any) -> Description:
    """A stored description in today's format.

    Args:
      description: as it was read; it is not changed.
      place: where it was read, for the error.

    Raises:
      LiditError: when it comes from a newer version.
      KeyError: when it has no format number.
    """
    number = description["format"]
    if number > FORMAT:
        raise LiditError(
            f"{place} has format {number}, newer than this version's {FORMAT}: upgrade lidit-jax"
        )
    for before in range(number, FORMAT):
        description = _STEPS[before](description)
    return description | {"format": FORMAT}


def _name_remat_policies(description: Description) -> Description:
    """Format 1 only knew whether blocks are recomputed, not what of them is kept."""
    config = description.get("config", {})
    model = dict(config.get("model", {}))
    if "remat" in model:
        model["remat"] = "full" if model["remat"] else "none"
        config = config | {"model": model}
    return description | {"config": config}


_STEPS: dict[int, Callable[[Description], Description]] = {1: _name_remat_policies}
