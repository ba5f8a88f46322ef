"""Migrate stored descriptions of older formats to the current one, with one function per format.

Checkpoints and exported folders both hold a description: a format number, the configuration of the
run, and the other facts that sampling requires. A change that would make old descriptions
unreadable increments `FORMAT` and adds a migration from the previous format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lidit_jax.config.renamed import RENAMED_FIELDS
from lidit_jax.errors import LiditError

FORMAT = 4
Description = dict[str, Any]


def migrate(description: Any, place: Any) -> Description:
    """Return a stored description in the current format.

    Args:
      description: the description as read; it is not modified.
      place: where it was read from, for error messages.

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
    """Replace format 1's boolean for rematerialization with the name of a policy."""
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
"""Fields that format 2 left empty where no choice was made, and the values that replaced ""."""


def _name_by_standard_terms(description: Description) -> Description:
    """Rename format 2's fields, and replace "" where no choice was made."""
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


def _stream_data(description: Description) -> Description:
    """Give format 3's data the fields of streamed data: squares only, of one caption column."""
    config = dict(description.get("config", {}))
    if isinstance(config.get("data"), Mapping):
        data = dict(config["data"])
        column = data.pop("caption_column", "")
        if column:
            data["captions"] = {"columns": [column]}
        data["buckets"] = {"shapes": 1}
        config["data"] = data
    return description | {"config": config}


_STEPS: dict[int, Callable[[Description], Description]] = {
    1: _name_remat_policies,
    2: _name_by_standard_terms,
    3: _stream_data,
}
