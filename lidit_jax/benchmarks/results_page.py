"""Write the results of `lidit bench all`, as JSON and as a Markdown page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lidit_jax.benchmarks.results_targets import compare_with_targets
from lidit_jax.io.output import atomic_file

JSON_FILE, MARKDOWN_FILE = "results.json", "results.md"
_GIB = 2**30
_CELL = 160
"""Maximum number of characters of a message in a table."""


def write_page(folder: Path, page: Mapping[str, Any]) -> None:
    """Write both files atomically, so that readers always find complete ones."""
    with atomic_file(folder / JSON_FILE) as file:
        file.write((json.dumps(page, indent=2, default=str) + "\n").encode())
    try:
        text = markdown(page)
    except Exception as error:  # an unexpected value must not end the measurements
        text = f"{JSON_FILE} has all figures; this page cannot show them: {error!r}\n"
    with atomic_file(folder / MARKDOWN_FILE) as file:
        file.write(text.encode())


def markdown(page: Mapping[str, Any]) -> str:
    """Return the Markdown page: header, how each part ended, and each part's results."""
    about, parts = page["about"], page["parts"]
    lines = ["# Measurements of `lidit bench all`", "", *_meaning(parts)]
    lines += _table(["what", "value"], [[name, _text(value)] for name, value in about.items()])
    lines += ["", "## Parts", ""]
    ends = [
        [row["title"], row["status"], f"{row.get('seconds', '')}", _cell(row.get("error", ""))]
        for row in parts
    ]
    lines += _table(["part", "status", "s", "reason"], ends)
    for row in parts:
        lines += ["", *_part(row)]
    return "\n".join(lines) + "\n"


def _meaning(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the summary at the top of the page."""
    table, sentences = compare_with_targets(parts)
    if not table:
        return []
    lines = ["## Summary", ""]
    lines += _table(["figure", "measured", "target", ""], table)
    return [*lines, "", *(line for one in sentences for line in (one, ""))]


def _part(row: Mapping[str, Any]) -> Iterator[str]:
    facts = row.get("facts") or {}
    lines = row.get("error_lines") or []
    descriptions = [text for text in (row.get("description"), facts.get("description")) if text]
    if not (facts or lines):
        return
    yield f"## {row['title']}"
    yield ""
    for text in descriptions:
        yield f"- {text}"
    if descriptions:
        yield ""
    for name, table in _TABLES.items():
        if facts.get(name):
            yield from table(facts[name])
            yield ""
    others = {k: v for k, v in facts.items() if k not in _TABLES and k not in _NOT_SHOWN}
    for name, value in others.items():
        yield f"- {name}: {_text(value)}"
    failed = [one for one in facts.get("rows", ()) if isinstance(one, dict) and "error" in one]
    for one in failed:
        yield from ("", f"{one['name']} failed: {one['error'][:_CELL]}")
        lines = lines or one.get("error_lines", [])
    if lines:
        yield from ("", "```", *lines, "```")


def _candidates(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Format a comparison; "relative time" is the median over rounds of the ratio to the first."""
    names = ["candidate", "s (median)", "min..max", "items/s", "TFLOP/s", "MFU", "relative time"]
    names += ["PSNR", "built, s", "peak GiB"]
    body = []
    for row in rows:
        if "error" in row:
            body.append([row["name"], "failed", *[""] * (len(names) - 2)])
            continue
        psnr = row.get("psnr_db", "")
        body.append(
            [
                row["name"] + (", ended early" if "ended_early" in row else ""),
                *_spread(row),
                _number(row.get("items_per_second")),
                _number(row.get("flops_per_second"), 1e12),
                _share(row.get("mfu")),
                _number(row.get("relative_time")),
                "equal" if psnr is None else _number(psnr or None),
                _number(row.get("first_seconds")),
                _number(row.get("peak_bytes"), _GIB),
            ]
        )
    return _table(names, body)


def _errors(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Format the errors of the kernel and of plain products, relative to the float32 reference."""
    names = ["error / largest value", *(f"kernel {x}" for x in _TENSORS)]
    names += [f"plain {x}" for x in _TENSORS]
    body = []
    for row in rows:
        if "error" in row:
            body.append([row["case"], _cell(row["error"]), *[""] * (len(names) - 2)])
            continue
        values = [row[who][x] for who in ("kernel", "plain") for x in _TENSORS]
        body.append([row["case"], *(f"{value:.2%}" for value in values)])
    return _table(names, body)


def _times(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = ["attention", "passes", "kernel", "s (median)", "min..max", "TFLOP/s", "MFU"]
    body = []
    for row in rows:
        passes = "both" if row["backward"] else "forward"
        if "error" in row:
            body.append([row["case"], passes, row["who"], _cell(row["error"]), "", "", ""])
            continue
        rate = _number(row["flops_per_second"], 1e12)
        body.append([row["case"], passes, row["who"], *_spread(row), rate, _share(row.get("mfu"))])
    return _table(names, body)


def _plan(plan: Mapping[str, Any]) -> list[str]:
    """Format the predictions of `lidit plan` next to the measurements."""
    seconds, size, mfu = plan["seconds"], plan["bytes"], plan["mfu"]
    who = ("predicted", "measured")
    return _table(
        [f"lidit plan, {plan['topology']}", *who, "measured / predicted"],
        [
            ["step, s", *(_number(seconds[w]) for w in who), _ratio(seconds)],
            ["peak memory, GiB", *(_number(size[w], _GIB) for w in who), _ratio(size)],
            ["MFU", *(_share(mfu[w]) for w in who), _ratio(mfu)],
        ],
    )


_TENSORS = ("out", "dq", "dk", "dv")
_TABLES = {"rows": _candidates, "plan": _plan, "errors": _errors, "times": _times}
"""Facts that are shown as tables; all others are listed."""
_NOT_SHOWN = ("settings", "versions", "cpu", "description")


def _spread(row: Mapping[str, Any]) -> list[str]:
    fastest, slowest = row["fastest_round_seconds"], row["slowest_round_seconds"]
    return [_number(row["median_seconds"]), f"{fastest:.4g}..{slowest:.4g}"]


def _number(value: float | None, unit: float = 1.0) -> str:
    return "" if value is None else f"{value / unit:.4g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _ratio(pair: Mapping[str, float | None]) -> str:
    if not pair["predicted"] or pair["measured"] is None:
        return ""
    return f"{pair['measured'] / pair['predicted']:.2f}"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return f"{value}"


def _cell(text: str) -> str:
    """Format a message on one line, with column separators escaped."""
    return " ".join(text.split()).replace("|", "/")[:_CELL]


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [names, ["---"] * len(names), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
