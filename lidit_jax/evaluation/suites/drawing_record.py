"""Record of a drawing: which model, prompts and settings the images of a folder are from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from lidit_jax.errors import LiditError
from lidit_jax.evaluation.suites.json_text import read_json
from lidit_jax.io.output import atomic_file

OWN = "lidit"
"""Subfolder of everything that the official scorer does not read."""
_FILE = f"{OWN}/drawing.json"
_SHOWN = 24


@dataclasses.dataclass(frozen=True)
class DrawingRecord:
    """What determines the images of a folder, beside the version of this program."""

    suite: str
    prompts_sha256: str
    """sha256 of all prompts of the suite."""
    prompts: int
    """Number of prompts in the file of the suite."""
    limit: int | None
    """First prompts of each task that are drawn; None for all."""
    drawn_prompts: int
    """Number of prompts that are drawn."""
    images_per_prompt: int
    seed: int
    checkpoint: str
    """The checkpoint as the user named it, which is not compared."""
    checkpoint_sha256: str
    size: tuple[int, int]
    """Height and width of an image in pixels."""
    settings: dict[str, Any]
    """Sampling settings, and those of the arithmetic."""

    def write(self, out: Path) -> None:
        """Write the record below the folder of the images."""
        (out / OWN).mkdir(parents=True, exist_ok=True)
        with atomic_file(out / _FILE) as file:
            file.write(json.dumps(dataclasses.asdict(self), indent=2).encode())


def read_record(out: Path) -> DrawingRecord | None:
    """Return the record of a folder of images; None if it has none.

    Raises:
      LiditError: when it is damaged.
    """
    if not (out / _FILE).exists():
        return None
    stored = read_json(out / _FILE)
    try:
        return DrawingRecord(**stored | {"size": tuple(stored["size"])})
    except (TypeError, KeyError) as error:
        raise LiditError(
            f"{out / _FILE} is not a record of this version: draw into another --out"
        ) from error


def begin(out: Path, record: DrawingRecord) -> DrawingRecord:
    """Write the record of a new folder, or compare that of an earlier launch; return what holds.

    A launch with a larger limit extends the folder; one with a smaller limit changes nothing.

    Raises:
      LiditError: when the folder holds images of another model, setting or set of prompts, or
        files of something else.
    """
    stored = read_record(out)
    if stored is None and (names := _strangers(out)):
        stored = read_record(out)  # another launch may have begun before the names were listed
        if stored is None:
            raise LiditError(
                f"--out: {out} holds {len(names)} files without a record of what they are, first "
                f"{names[0]!r}: name a new folder"
            )
    if stored is None:
        record.write(out)
        stored = read_record(out)  # of another launch that began at the same moment
        assert stored is not None
    _refuse_other(out, stored, record)
    wider = record.limit is None or (stored.limit is not None and record.limit > stored.limit)
    if wider and record.limit != stored.limit:
        record.write(out)
        return record
    return stored


def _strangers(out: Path) -> list[str]:
    """Return the names in a folder that are not of the record, in order; [] if there is none."""
    if not out.is_dir():
        return []
    return sorted(path.name for path in out.iterdir() if path.name != OWN)


def _refuse_other(out: Path, stored: DrawingRecord, record: DrawingRecord) -> None:
    free = ("checkpoint", "limit", "drawn_prompts", "settings")
    before, now = (
        {name: value for name, value in dataclasses.asdict(each).items() if name not in free}
        | each.settings
        for each in (stored, record)
    )
    for name in before | now:
        if before.get(name) != now.get(name):
            raise LiditError(
                f"--out: {out} holds images of another {name} ({_shown(before.get(name))}, not "
                f"{_shown(now.get(name))}): name another folder, or delete this one"
            )


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
