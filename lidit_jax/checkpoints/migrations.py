"""From the descriptions that older versions stored to today's: one function a format.

Checkpoints and exported folders both hold a description: a format number, the configuration of the
run, and what else sampling needs to know. A change that would make an old description unreadable
raises `FORMAT` and adds the step from the format before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lidit_jax.config.renamed import RENAMED_FIELDS
from lidit_jax.errors import LiditError

FORMAT = 3
Description = dict[str, Any]


def migrate(description: Any, place: Any) -> Description:
    """A stored description in today's format.

    Args:
      description: as it was read; it is not changed.
      place: where it was read, for the error.

    Raises:
      LiditError: when it comes from a newer version.
      KeyError: when it has no format number.
      TypeError: when it is no mapping.
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


_WRITTEN_OUT = {
    "diffusion.loss": "prediction",
    "diffusion.weighting": "none",
    "training.quantization": "none",
    "training.tracker": "none",
}
"""Fields that format 2 left empty where nothing was chosen, and what says so since."""


def _name_by_standard_terms(description: Description) -> Description:
    """Format 2 had other names for some fields and facts, and "" where a choice was not made."""
    config = {
        group: dict(fields) if isinstance(fields, Mapping) else fields
        for group, fields in description.get("config", {}).items()
    }
    for old, new in RENAMED_FIELDS.items():
        (group, before), (_, name) = old.split("."), new.split(".")
        if before in config.get(group, {}):
            config[group][name] = config[group].pop(before)
    for path, value in _WRITTEN_OUT.items():
        group, name = path.split(".")
        if config.get(group, {}).get(name) == "":
            config[group][name] = value
    description = _rename_provenance(description) | {"config": config}
    if isinstance(description.get("metadata"), Mapping):  # in an exported folder it is nested
        description["metadata"] = _rename_provenance(description["metadata"])
    return description


def _rename_provenance(facts: Mapping[str, Any]) -> dict[str, Any]:
    facts = {"prefix_lengths" if name == "crop" else name: facts[name] for name in facts}
    if isinstance(facts.get("latents"), Mapping):
        latents = facts["latents"]
        facts["latents"] = {
            "std" if name == "deviation" else name: latents[name] for name in latents
        }
    return facts


_STEPS: dict[int, Callable[[Description], Description]] = {
    1: _name_remat_policies,
    2: _name_by_standard_terms,
}
