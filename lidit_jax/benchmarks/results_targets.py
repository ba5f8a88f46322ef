"""Summarize the page of `lidit bench all`: its key results compared with their targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class Target(NamedTuple):
    """Key result of a part, and its target."""

    part: str
    """Name of the part."""
    figure: str
    goal: float
    """Minimum value that reaches the target."""
    of: Callable[[Sequence[Row]], float | None]
    """Function from the part's rows to the result; None if it was not measured."""
    shown: Callable[[float], str]


def _ours(rows: Sequence[Row]) -> Row:
    return next((r for r in rows if "error" not in r and "PyTorch" not in r["name"]), {})


def _mfu(rows: Sequence[Row]) -> float | None:
    return _ours(rows).get("mfu")


def _speed(rows: Sequence[Row]) -> float | None:
    """Return the speed relative to the fastest of PyTorch's candidates."""
    theirs = [r["relative_time"] for r in rows if "PyTorch" in r["name"] and r.get("relative_time")]
    return min(theirs) if theirs and _ours(rows) else None


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _times(value: float) -> str:
    return f"{value:.2f} times"


TARGETS = (
    Target("step_256", "MFU of the train step at 256 px", 0.45, _mfu, _percent),
    Target("step_1024", "MFU of the train step at 1024 px", 0.50, _mfu, _percent),
    Target("step_256", "its speed relative to torch.compile, 256 px", 1.1, _speed, _times),
    Target("step_1024", "its speed relative to torch.compile, 1024 px", 1.1, _speed, _times),
    Target("sample", "sampling speed relative to PyTorch", 1.1, _speed, _times),
)
_SMALL_ERROR = 2.0
"""Acceptable ratio of the kernel's errors to those of plain products, both in one rounding."""


def compare_with_targets(parts: Sequence[Row]) -> tuple[list[list[str]], list[str]]:
    """Return table rows (figure, measured, target, verdict) and the sentences below the table.

    Args:
      parts: the page's parts, measured or not.
    """
    facts = {part["name"]: part.get("facts") or {} for part in parts}
    table = []
    for target in TARGETS:
        if target.part not in facts:
            continue
        value = target.of(facts[target.part].get("rows") or [])
        measured, verdict = "not measured", ""
        if value is not None:
            measured = target.shown(value)
            verdict = "reached" if value >= target.goal else "missed"
        goal = f"at least {target.shown(target.goal)}"
        table.append([target.figure, measured, goal, verdict])
    return table, _attention(facts.get("attention", {})) + _alone(facts)


def _attention(facts: Row) -> list[str]:
    rows = [row for row in facts.get("errors", ()) if "error" not in row]
    if not rows:
        return []
    worst = max(row["kernel"][x] / max(row["plain"][x], 1e-9) for row in rows for x in row["plain"])
    exact = "as exact as" if worst <= _SMALL_ERROR else "less exact than"
    return [
        f"The attention kernel is {exact} plain matrix products in bfloat16: its errors are at "
        f"most {worst:.1f} times as large, in {len(rows)} cases."
    ]


def _alone(facts: Mapping[str, Row]) -> list[str]:
    """List the parts in which only one side was measured."""
    found = []
    for name, one in facts.items():
        rows = one.get("rows") or []
        good = [row["name"] for row in rows if "error" not in row]
        if len(good) == 1 < len(rows):
            found.append(
                f"{name}: only {good[0]} was measured; the errors of the others are below."
            )
    return found
