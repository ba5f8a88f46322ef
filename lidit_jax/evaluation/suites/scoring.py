"""Scoring of an official scorer's results, and the files of the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lidit_jax.errors import LiditError
from lidit_jax.evaluation.suites.drawing_record import OWN, DrawingRecord, read_record
from lidit_jax.evaluation.suites.json_text import read_json
from lidit_jax.evaluation.suites.score_plot import plot
from lidit_jax.evaluation.suites.score_report import Report, markdown, report
from lidit_jax.evaluation.suites.scores import suite_scores
from lidit_jax.evaluation.suites.suite import (
    Item,
    ScoredSuite,
    first_of_each_task,
    prompts_sha256,
)
from lidit_jax.io.output import atomic_file

_UNNAMED = "this model"


@dataclass(frozen=True)
class Expected:
    """What should have been scored, as far as the user says so; None follows the drawing."""

    limit: int | None = None
    images_per_prompt: int | None = None
    name: str | None = None
    """Name of the model in tables."""


def score_results(
    suite: ScoredSuite,
    items: Sequence[Item],
    results: Path,
    out: Path,
    expected: Expected,
    others: Sequence[Path] = (),
) -> str:
    """Read results, write `scores.json`, `.md` and `.png` below `out/lidit`, return the tables.

    Args:
      suite: the suite.
      items: all its prompts.
      results: what its official scorer wrote.
      out: folder of the images, with the record of their drawing; or of images that another
        program drew, or any other folder.
      expected: limit, images per prompt and name, where the record does not say them.
      others: files `scores.json` of the same model on other suites, for the tables and the plot.

    Raises:
      LiditError: when results are missing, surplus, damaged or of other prompts than were drawn,
        or the other files are not of the same model.
    """
    record = read_record(out)
    if record is not None:
        _check_drawing(suite, items, record, out, expected)
    limit = record.limit if record else expected.limit
    count = record.images_per_prompt if record else expected.images_per_prompt
    count = count or suite.images_per_prompt
    drawn = first_of_each_task(items, limit)
    facts = {
        "model": expected.name or (record.checkpoint if record else _UNNAMED),
        "checkpoint_sha256": record.checkpoint_sha256 if record else None,
        "results": str(results),
        "prompts": len(items),
        "prompts_scored": len(drawn),
        "limit": limit,
        "images_per_prompt": count,
        "seed": record.seed if record else None,
    }
    scores = suite_scores(suite, drawn, suite.read_results(results, drawn, count))
    own = report(suite, scores, facts)
    reports = [own]
    for path in others:
        reports += [_other(path, reports)]
    text = markdown(reports)
    folder = out / OWN
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "scores.json") as file:
        file.write(json.dumps(own, indent=2).encode())
    with atomic_file(folder / "scores.md") as file:
        file.write(text.encode())
    with atomic_file(folder / "scores.png") as file:
        plot(reports, file)
    return text


def _check_drawing(
    suite: ScoredSuite, items: Sequence[Item], record: DrawingRecord, out: Path, expected: Expected
) -> None:
    if record.suite != suite.name:
        raise LiditError(f"--out: {out} holds images of {record.suite}, not of {suite.name}")
    if record.prompts_sha256 != prompts_sha256(items):
        raise LiditError(
            f"--out: {out} was drawn from another set of {record.prompts} prompts than --benchmark "
            "has: name the one that was drawn"
        )
    for name in ("limit", "images_per_prompt"):
        said, drawn = getattr(expected, name), getattr(record, name)
        if said is not None and said != drawn:
            option = name.replace("_", "-")
            raise LiditError(
                f"--{option}={said}, but {out} was drawn with {drawn or 'no limit'}: leave out the "
                "option"
            )


def _other(path: Path, reports: Sequence[Report]) -> Report:
    """Read the report of the same model on another suite.

    Args:
      path: the file.
      reports: those of this model so far, with that of the scored results first.
    """
    own = reports[0]
    stored: Any = read_json(path)
    if not isinstance(stored, dict) or "table_1" not in stored:
        raise LiditError(f"--with: {path} is no scores.json of lidit eval: name one")
    if lacking := own.keys() - stored.keys():
        raise LiditError(
            f"--with: {path} has no {min(lacking)!r}: score the results of its suite again"
        )
    if any(stored["suite"] == each["suite"] for each in reports):
        raise LiditError(f"--with: {path} is of {stored['title']} too: name one of another suite")
    if stored["checkpoint_sha256"] != own["checkpoint_sha256"]:
        raise LiditError(f"--with: {path} is of another model: name one of {own['model']}")
    if own["checkpoint_sha256"] is None:  # of images of another program
        if own["model"] == _UNNAMED:
            raise LiditError(f"--with: {path} may be of another model: score both with --name")
        if stored["model"] != own["model"]:
            raise LiditError(f"--with: {path} is of {stored['model']}: name one of {own['model']}")
    return stored
