"""Scenes benchmark: generate images for prompts with known ground truth and score the pixels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from lidit_jax.evaluation.scene_grid import hits_and_misses
from lidit_jax.evaluation.scene_prompts import AVERAGED_TASKS, MEAN_LABEL, evaluation_prompts
from lidit_jax.evaluation.scene_scorer import Accuracy, SceneReport, score_images, summarize
from lidit_jax.io.console import NoWrapConsole
from lidit_jax.io.output import atomic_file
from lidit_jax.io.progress import progress_bar
from lidit_jax.sampling.pipeline import Pipeline

RESULTS = Path("runs/scenes")
"""Default folder of the results."""
SCORES, GRID = "scores.json", "hits_and_misses.png"
"""Files of the results."""
_GRID_LIMIT = 128


def evaluate(
    checkpoint: str,
    out: Path | None,
    *,
    per_task: int,
    seed: int,
    settings: dict[str, Any],
    batch_size: int,
    encoders: Mapping[str, str] | None = None,
) -> SceneReport:
    """Generate one image per prompt, print the scores, write `scores.json` and an image grid.

    Args:
      checkpoint: as for `Pipeline.from_checkpoint`.
      out: folder for `scores.json` and `hits_and_misses.png`; None for one below `RESULTS` that is
        named after the checkpoint and its weights, so that models do not share a folder.
      per_task: prompts per task.
      seed: seed of prompts and noise; image i uses seed + i.
      settings: sampling settings as for `Pipeline`; None for the checkpoint's own.
      batch_size: images per batch.
      encoders: new locations of text encoders that have moved since training.
    """
    prompts = evaluation_prompts(per_task, seed)
    pipeline = Pipeline.from_checkpoint(checkpoint, encoders=encoders)
    out = out or RESULTS / f"{_name_of(checkpoint)}-{pipeline.fingerprint[:8]}"
    images = []
    with progress_bar("drawing") as progress:
        for first in range(0, len(prompts), batch_size):
            texts = [prompt.prompt for prompt in prompts[first : first + batch_size]]
            images.extend(pipeline(texts, seed=seed + first, **settings))
            progress(len(images), len(prompts))
    verdicts = score_images(images, prompts)
    report = summarize(prompts, verdicts)
    record = {
        "checkpoint": str(checkpoint),
        "seed": seed,
        "checkpoint_sha256": pipeline.fingerprint,
        **{
            name: getattr(pipeline.config.sampling, name) if value is None else value
            for name, value in settings.items()
        },
        **report.to_dict(),
        "images": [
            {"task": p.task, "prompt": p.prompt, "held_out": p.held_out}
            | {"correct": v.correct, "reason": v.reason}
            for p, v in zip(prompts, verdicts, strict=True)
        ],
    }
    out.mkdir(parents=True, exist_ok=True)
    with atomic_file(out / SCORES) as file:
        file.write(json.dumps(record, indent=2).encode())
    # In a long evaluation the grid shows evenly spaced images of every task, never a selection.
    shown = range(0, len(prompts), -(-len(prompts) // _GRID_LIMIT))
    grid = hits_and_misses(
        [images[i] for i in shown], [prompts[i] for i in shown], [verdicts[i] for i in shown]
    )
    with atomic_file(out / GRID) as file:
        grid.save(file, format="PNG")
    _print(report, out)
    return report


def _name_of(checkpoint: str) -> str:
    """Return the checkpoint's folder name; for a step of a run, the run's name and the step."""
    parts = [part for part in checkpoint.split("/") if part not in ("", ".", "..", "checkpoints")]
    return "-".join(parts[-2:] if parts[-1:] and parts[-1].isdigit() else parts[-1:]) or "model"


def _print(report: SceneReport, out: Path) -> None:
    table = Table(title="scenes, scored on pixels")
    for name in ("task", "correct", "of", "accuracy", "95% interval"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for task, accuracy in report.tasks.items():
        _add_row(table, task if task in AVERAGED_TASKS else f"{task} (not in the mean)", accuracy)
    table.add_section()
    if report.seen and report.held_out:
        _add_row(table, "combinations seen in training", report.seen)
        _add_row(table, "held-out combinations", report.held_out)
    table.add_row(MEAN_LABEL, "", "", f"{report.overall:.1%}", "")
    console = NoWrapConsole()
    console.show(table)
    console.say(f"{out / SCORES} and {out / GRID}")


def _add_row(table: Table, name: str, accuracy: Accuracy) -> None:
    interval = f"{accuracy.low:.1%} to {accuracy.high:.1%}"
    table.add_row(
        name, str(accuracy.correct), str(accuracy.n), f"{accuracy.accuracy:.1%}", interval
    )
