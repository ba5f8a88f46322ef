"""Scores on scenes that `lidit eval scenes` has saved, for the card of a model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lidit_jax.evaluation.scene_prompts import AVERAGED_TASKS, MEAN_LABEL
from lidit_jax.evaluation.scenes import GRID, SCORES
from lidit_jax.io.paths import in_bucket

_KEYS = {"checkpoint_sha256", "tasks", "seen", "held_out", "overall"}
_NUMBERS = ("correct", "n", "accuracy", "low", "high")


@dataclass(frozen=True)
class SavedScores:
    """Content of one `scores.json`."""

    folder: Path
    record: dict[str, Any]

    @property
    def grid(self) -> Path:
        """The image grid beside it."""
        return self.folder / GRID

    def markdown(self) -> str:
        """Return a sentence on the settings, and the table of accuracies with intervals."""
        record, none = self.record, "n/a"
        rows = [
            (task.replace("_", " ") + ("" if task in AVERAGED_TASKS else " (not in the mean)"), one)
            for task, one in record["tasks"].items()
        ]
        if record["seen"] and record["held_out"]:
            rows.append(("combinations seen in training", record["seen"]))
            rows.append(("held-out combinations", record["held_out"]))
        lines = [
            f"| {name} | {one['correct']} | {one['n']} | {one['accuracy']:.0%} | "
            f"{one['low']:.0%} to {one['high']:.0%} |"
            for name, one in rows
        ]
        images = sum(one["n"] for one in record["tasks"].values())
        settings = (
            f"`lidit eval scenes`, {images} images, {record.get('steps', none)} steps of "
            f"`{record.get('sampler', none)}`, guidance {record.get('guidance', none)}, seed "
            f"{record.get('seed', none)}; scenes and scorer are lidit-jax's own:"
        )
        heads = "| task | correct | of | accuracy | 95% interval |\n|---|---|---|---|---|"
        mean = f"| **{MEAN_LABEL}** | | | **{record['overall']:.0%}** | |"
        return "\n".join([settings, "", heads, *lines, mean, ""])


def find_scores(folders: Iterable[Path], fingerprint: str) -> SavedScores | None:
    """Return the newest scores of some weights, in folders or directly below them.

    Args:
      folders: where to look; those in buckets are left out.
      fingerprint: sha256 of the weights, see `weights.parameter_paths.fingerprint`.
    """
    files = {
        file
        for folder in folders
        if not in_bucket(folder)
        for pattern in (SCORES, f"*/{SCORES}")
        for file in folder.glob(pattern)
    }
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:  # a file of another program
            continue
        if _is_record(record) and record["checkpoint_sha256"] == fingerprint:
            return SavedScores(file.parent, record)
    return None


def _is_record(content: Any) -> bool:
    """Return whether the content of a file has everything that a card shows."""
    if not isinstance(content, dict) or not content.keys() >= _KEYS:
        return False
    tasks, extra = content["tasks"], [content[name] for name in ("seen", "held_out")]
    if not isinstance(tasks, dict) or not isinstance(content["overall"], int | float):
        return False
    counts = [*tasks.values(), *(one for one in extra if one)]
    return all(
        isinstance(one, dict) and all(isinstance(one.get(name), int | float) for name in _NUMBERS)
        for one in counts
    )
