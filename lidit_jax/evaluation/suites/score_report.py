"""Report of a suite's scores: JSON, and the paper's table 1 with the model's own row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lidit_jax.evaluation.suites.paper_table import COLUMNS, TABLE, TITLES
from lidit_jax.evaluation.suites.scores import LEVEL, RESAMPLES, Score, SuiteScores, table_columns
from lidit_jax.evaluation.suites.suite import ScoredSuite

Report = dict[str, Any]
"""Content of a file `scores.json`."""
_DIGITS = 2
"""Decimal places of table 1, as in the paper."""


def report(suite: ScoredSuite, scores: SuiteScores, facts: dict[str, Any]) -> Report:
    """Return the content of `scores.json`.

    Args:
      suite: the suite.
      scores: its scores.
      facts: where they are from: `model`, `prompts`, `prompts_scored`, `limit`,
        `images_per_prompt` and more.
    """

    def row(score: Score) -> dict[str, Any]:
        scaled = {k: suite.scale * getattr(score, k) for k in ("score", "low", "high")}
        return scaled | {"prompts": score.prompts, "images": score.images}

    return {
        "suite": suite.name,
        "title": suite.title,
        **facts,
        "official_prompts": suite.official_prompts,
        "out_of": suite.scale,
        "tasks": {name: row(score) for name, score in scores.tasks.items()},
        "mean": None if scores.mean is None else {"name": suite.mean, **row(scores.mean)},
        "not_scored": list(scores.not_scored),
        "table_1": {column: row(score) for column, score in table_columns(suite, scores).items()},
        "interval": {
            "level": LEVEL,
            "method": "percentile bootstrap over prompts, within tasks",
            "resamples": RESAMPLES,
        },
    }


def subset_note(report: Report) -> str:
    """Return how the scored prompts differ from the official set; empty if they do not."""
    drawn, official = report["prompts_scored"], report["official_prompts"]
    notes = []
    if report["limit"] is not None and drawn < report["prompts"]:
        notes.append(f"first {report['limit']} prompts per task, {drawn} of {report['prompts']}")
    if report["prompts"] != official:
        notes.append(f"{report['prompts']} prompts, not the {official} of the official set")
    return ", ".join(notes)


def markdown(reports: Sequence[Report]) -> str:
    """Return the scores per task of each suite, then table 1 of the paper with the model's row.

    Args:
      reports: of one model, each of another suite.
    """
    lines = []
    for each in reports:
        lines += _tasks(each)
    return "\n".join([*lines, *_table(reports), ""])


def published_rows(suite: str) -> dict[str, dict[str, float | None]]:
    """Return the rows of table 1 that have a score on a suite."""
    return {
        model: row[suite]
        for model, row in TABLE.items()
        if any(value is not None for value in row[suite].values())
    }


def _tasks(report: Report) -> list[str]:
    note = subset_note(report)
    digits = 4 if report["out_of"] == 1 else 2
    rows = {**report["tasks"]}
    if report["mean"] is not None:
        rows[report["mean"]["name"]] = report["mean"]
    return [
        f"{report['title']}, {report['model']}, {report['images_per_prompt']} images per prompt"
        + (f"; not comparable with published scores: {note}" if note else ""),
        "",
        "| task | score | 95% interval | prompts | images |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {name} | {_number(row['score'], digits)} | {_interval(row, digits)} "
            f"| {row['prompts']} | {row['images']} |"
            for name, row in rows.items()
        ),
        *(f"| {name} | no results |  |  |  |" for name in report["not_scored"]),
        "",
    ]


def _table(reports: Sequence[Report]) -> list[str]:
    """Return table 1 with the columns of the scored suites, and the models that have any."""
    given = {each["suite"]: each for each in reports}
    suites = [suite for suite in COLUMNS if suite in given]
    columns = [(suite, column) for suite in suites for column in COLUMNS[suite]]
    lines = [
        f"Table 1 of arXiv 2406.11831: {', '.join(TITLES[suite] for suite in suites)}",
        "",
        f"| model | {' | '.join(column for _, column in columns)} |",
        f"|---|{'---:|' * len(columns)}",
    ]
    for model, row in TABLE.items():
        cells = [row[suite][column] for suite, column in columns]
        if any(cell is not None for cell in cells):
            lines.append(f"| {model} | {' | '.join(map(_number, cells))} |")
    own = [given[suite]["table_1"].get(column) for suite, column in columns]
    cells = ["-" if row is None else _number(row["score"]) for row in own]
    ranges = ["-" if row is None else _interval(row) for row in own]
    notes = [f"{each['title']}: {note}" for each in reports if (note := subset_note(each))]
    name = reports[0]["model"] + (f" ({'; '.join(notes)})" if notes else "")
    return [
        *lines,
        f"| **{name}** | {' | '.join(cells)} |",
        f"| 95% interval | {' | '.join(ranges)} |",
    ]


def _number(value: float | None, digits: int = _DIGITS) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(row: dict[str, Any], digits: int = _DIGITS) -> str:
    return f"{_number(row['low'], digits)} to {_number(row['high'], digits)}"
