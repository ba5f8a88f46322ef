"""What distinguishes a store that is missing from the most similar one that is there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DATA = "data"
"""Name in a description of the digest of records, filters, captions and shapes."""
_DERIVED = {DATA, "shapes", "columns"}
"""Names that differ with the data."""
_SHOWN = 48


def differences(folder: Path, description: Mapping[str, Any]) -> str:
    """Compare the description of a missing store with those beside it.

    Stores of other data count only if nothing but the data differs.

    Args:
      folder: folder that the store would have.
      description: its description.

    Returns:
      The differences from the most similar store; "" if none is similar.
    """
    kind = folder.name.rpartition("-")[0]
    found: list[tuple[int, str, list[str]]] = []
    for header in sorted(_headers(folder.parent, kind)):
        try:
            other = json.loads(header.read_bytes())["description"]
        except (OSError, ValueError, KeyError):
            continue
        names = [n for n in {**other, **description} if other.get(n) != description.get(n)]
        if DATA not in names or _DERIVED.issuperset(names):
            told = [_told(name, other, description) for name in names]
            found.append((len(names), header.parent.name, told))
    if not found:
        return ""
    _, name, told = min(found)
    return f"those in {name} are others: {', '.join(told)}"


def _headers(parent: Path, kind: str) -> list[Path]:
    try:
        return [
            path / "header.json" for path in parent.iterdir() if path.name.startswith(f"{kind}-")
        ]
    except (FileNotFoundError, NotADirectoryError):  # a bucket has no empty folders
        return []


def _told(name: str, other: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    if name == DATA:
        return "the data (records, filters, captions or shapes)"
    return f"{name} {_shown(other.get(name))}, not {_shown(ours.get(name))}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
