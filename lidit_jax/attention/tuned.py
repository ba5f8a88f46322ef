"""Tiles that `lidit tune attention` has found, kept in the user's cache."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from lidit_jax.output import atomic_file
from lidit_jax.paths import cache_dir

_FILE = "attention_tiles.json"


@dataclass(frozen=True)
class Shape:
    """One attention on one device, in bfloat16."""

    generation: str
    head_width: int
    queries: int
    keys: int

    @property
    def key(self) -> str:
        """Its name in the file."""
        return f"{self.generation} K={self.head_width} N={self.queries} S={self.keys}"


def tuned_tiles(shape: Shape) -> tuple[int, int, int] | None:
    """Tokens of queries, of keys, and of keys in one product; None where nothing was tuned."""
    found = _read(cache_dir() / _FILE).get(shape.key)
    return None if found is None else tuple(found)


def keep_tiles(shape: Shape, tiles: tuple[int, int, int]) -> Path:
    """Remembers them, and returns the file."""
    file = cache_dir() / _FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    entries = _read(file) | {shape.key: list(tiles)}
    with atomic_file(file) as handle:
        handle.write((json.dumps(entries, indent=1) + "\n").encode())
    _read.cache_clear()
    return file


@functools.cache
def _read(file: Path) -> dict[str, list[int]]:
    return json.loads(file.read_text()) if file.is_file() else {}
