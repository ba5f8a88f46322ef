"""Tile sizes found by `lidit tune attention`, stored in the user's cache."""

from __future__ import annotations

import functools
import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lidit_jax.io.output import atomic_file
from lidit_jax.io.paths import cache_dir

_FILE = "attention_tiles.json"
FoundBy = Literal["time", "schedule"]
"""Whether tiles were measured on a TPU or estimated from the compiler's schedule."""


@dataclass(frozen=True)
class Shape:
    """Shape of an attention call on one device, in bfloat16."""

    generation: str
    head_width: int
    queries: int
    keys: int

    @property
    def key(self) -> str:
        """Key of the shape in the file."""
        return f"{self.generation} K={self.head_width} N={self.queries} S={self.keys}"


@dataclass(frozen=True)
class _Entry:
    """Tiles stored for one shape."""

    tiles: tuple[int, int, int]
    found_by: FoundBy


def tuned_tiles(shape: Shape) -> tuple[int, int, int] | None:
    """Return the tuned tokens per query tile, key tile and inner product; None if not tuned."""
    found = _read(cache_dir() / _FILE).get(shape.key)
    return None if found is None else found.tiles


def save_tiles(shape: Shape, tiles: tuple[int, int, int], found_by: FoundBy) -> Path | None:
    """Save tiles and return the file; None if an estimate would replace a measurement."""
    file = cache_dir() / _FILE
    entries = dict(_read(file))
    known = entries.get(shape.key)
    if known is not None and known.found_by == "time" and found_by != "time":
        return None
    entries[shape.key] = _Entry(tiles, found_by)
    content = {key: asdict(entry) for key, entry in entries.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as handle:
        handle.write((json.dumps(content, indent=1) + "\n").encode())
    _read.cache_clear()
    return file


@functools.cache
def _read(file: Path) -> dict[str, _Entry]:
    """Read the stored tiles; warn and return none if the file is damaged."""
    if not file.is_file():
        return {}
    try:
        return {key: _entry(value) for key, value in json.loads(file.read_bytes()).items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        warnings.warn(
            f"{file} is damaged ({error}), so no tuned tiles are used: delete it, or run "
            "`lidit tune attention` again",
            stacklevel=2,
        )
        return {}


def _entry(value: Any) -> _Entry:
    # Entries of the first versions hold tiles only, without how they were found.
    entry = {"tiles": value, "found_by": "schedule"} if isinstance(value, list) else value
    tiles, found_by = tuple(entry["tiles"]), entry["found_by"]
    sizes = all(isinstance(size, int) and size > 0 for size in tiles)
    if len(tiles) != 3 or not sizes or found_by not in get_args(FoundBy):
        raise ValueError(f"no tiles: {value}")
    return _Entry(tiles, found_by)
