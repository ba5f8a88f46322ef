"""Fields of the configuration that had other names in earlier versions."""

from __future__ import annotations

RENAMED_FIELDS = {
    "data.scene_shares": "data.scene_fractions",
    "data.sized_share": "data.sized_fraction",
    "data.textured_share": "data.textured_fraction",
    "training.matmul": "training.quantization",
}
"""Today's name of each. Overrides and recipes that use an old name are told the new one;
descriptions of old checkpoints are migrated (`lidit_jax.checkpoints.migrations`)."""


def new_name(place: str, name: str) -> str | None:
    """Today's path of a field that was renamed, such as "config.training.quantization".

    Args:
      place: the group it was in, such as "config.training"; "" finds it in any group.
      name: the field's old name.
    """
    for old, new in RENAMED_FIELDS.items():
        group, _, field = old.rpartition(".")
        if field == name and place in ("", f"config.{group}"):
            return f"config.{new}"
    return None
