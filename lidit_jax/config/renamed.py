"""Fields of the configuration that had other names in earlier versions."""

from __future__ import annotations

RENAMED_FIELDS = {
    "data.scene_shares": "data.scene_fractions",
    "data.sized_share": "data.sized_fraction",
    "data.textured_share": "data.textured_fraction",
    "training.matmul": "training.quantization",
}
"""Current name of each. Errors about old names in overrides and recipes state the new one;
configurations of old checkpoints are migrated (`lidit_jax.checkpoints.migrations`)."""

REPLACED_FIELDS = {"data.caption_column": "data.captions.columns"}
"""Field that replaces each, with values of another type."""


def new_name(place: str, name: str) -> str | None:
    """Return the current path of a renamed field, such as "config.training.quantization".

    Args:
      place: its former group, such as "config.training"; "" searches all groups.
      name: the field's old name.
    """
    for old, new in (RENAMED_FIELDS | REPLACED_FIELDS).items():
        group, _, field = old.rpartition(".")
        if field == name and place in ("", f"config.{group}"):
            return f"config.{new}"
    return None
