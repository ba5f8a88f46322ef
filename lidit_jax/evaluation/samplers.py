"""Comparison of samplers, step counts and step caching by scenes score and run time."""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lidit_jax.diffusion.samplers import solver_tables
from lidit_jax.encoders.conditions import TextConditions, pad_conditions
from lidit_jax.errors import LiditError
from lidit_jax.evaluation.sampler_plot import plot
from lidit_jax.evaluation.sampler_report import markdown
from lidit_jax.evaluation.scene_prompts import AVERAGED_TASKS, ScenePrompt, evaluation_prompts
from lidit_jax.evaluation.scene_scorer import score_images, summarize
from lidit_jax.io.output import atomic_file
from lidit_jax.io.progress import progress_bar
from lidit_jax.pytorch.parity import psnr
from lidit_jax.sampling.pipeline import Pipeline
from lidit_jax.sampling.request import image_requests
from lidit_jax.sampling.settings import sampler_of


@dataclass(frozen=True)
class Run:
    """Sampler settings of one row of the comparison."""

    sampler: str
    steps: int
    cache_interval: int = 1


def compare_samplers(
    checkpoint: str,
    out: Path,
    *,
    samplers: Sequence[str],
    steps: Sequence[int],
    cache_intervals: Sequence[int],
    per_task: int,
    seed: int,
    batch_size: int,
    settings: dict[str, Any],
    encoders: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Generate, score and time images of the same prompts and seeds with every sampler setting.

    Writes `samplers.json` and `samplers.md` after every row, `samplers.png` at the end. Existing
    rows of the same comparison are kept: run it again to resume.

    Args:
      checkpoint: as for `Pipeline.from_checkpoint`.
      out: folder of the three files.
      samplers: names that the checkpoint supports; empty for all supported ones.
      steps: step counts for each sampler.
      cache_intervals: step cache intervals, with the checkpoint's sampler and steps.
      per_task: prompts per task.
      seed: seed of prompts and noise; image i uses seed + i.
      batch_size: images per batch.
      settings: other sampling settings, for all rows.
      encoders: new locations of text encoders that have moved since training.

    Returns:
      What is in `samplers.json`.

    Raises:
      LiditError: when a setting is invalid, before any image is generated, or when `out` contains
        another comparison.
    """
    prompts = evaluation_prompts(per_task, seed)
    pipeline = Pipeline.from_checkpoint(checkpoint, encoders=encoders)
    usual = pipeline.settings(**settings, cache_interval=1)
    runs = [Run(usual.sampler, usual.steps)]
    runs += [Run(usual.sampler, usual.steps, interval) for interval in cache_intervals]
    runs += [Run(name, count) for count in steps for name in samplers or pipeline.samplers]
    runs = list(dict.fromkeys(runs))
    for run in runs:
        pipeline.settings(**settings, **dataclasses.asdict(run))
    report = {
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": pipeline.fingerprint,
        "prompts": len(prompts),
        "seed": seed,
        "batch_size": min(batch_size, len(prompts)),
        "settings": {name: value for name, value in settings.items() if value is not None},
        "usual": dataclasses.asdict(runs[0]),
    }
    rows = _rows_so_far(out / "samplers.json", report)
    left = [run for run in runs if run not in rows]
    if left and left[0] != runs[0]:
        left.insert(0, runs[0])  # generated again, as the reference for the others
    if left:
        _draw_rows(pipeline, prompts, left, settings, report, rows, out)
    report["rows"] = [*rows.values()]
    with atomic_file(out / "samplers.png") as file:
        plot(report["rows"], report["usual"], file)
    return report


def _draw_rows(
    pipeline: Pipeline,
    prompts: Sequence[ScenePrompt],
    left: Sequence[Run],
    settings: dict[str, Any],
    report: dict[str, Any],
    rows: dict[Run, dict[str, Any]],
    out: Path,
) -> None:
    """Measure the remaining rows and write each one; the first has the default settings."""
    drawing = _Drawing(pipeline, prompts, report["seed"], report["batch_size"])
    total = sum(_evaluations(pipeline, settings, run) for run in left) * len(drawing.batches)
    reference, done = None, 0
    with progress_bar("evaluations") as progress:
        for run in left:
            evaluations = _evaluations(pipeline, settings, run)
            chosen = {**settings, **dataclasses.asdict(run)}
            images, seconds = [], []
            for batch, time_an_image in drawing.draw(chosen):
                images.extend(batch)
                seconds.append(time_an_image)
                done += evaluations
                progress(done, total)
            images = np.stack(images[: len(prompts)])
            if reference is None:
                reference = images
            if run not in rows:
                time_an_image = statistics.median(seconds)
                rows[run] = _row(run, evaluations, prompts, images, reference, time_an_image)
                _write(out, report | {"rows": [*rows.values()]})


class _Drawing:
    """Prompts encoded once, in batches of one size and one text length."""

    def __init__(
        self, pipeline: Pipeline, prompts: Sequence[ScenePrompt], seed: int, batch_size: int
    ):
        self._pipeline = pipeline
        texts, seeds = [prompt.prompt for prompt in prompts], [*range(seed, seed + len(prompts))]
        filling = -len(texts) % batch_size
        texts, seeds = texts + texts[-1:] * filling, seeds + seeds[-1:] * filling
        self.batches = [
            (texts[i : i + batch_size], seeds[i : i + batch_size])
            for i in range(0, len(texts), batch_size)
        ]
        with progress_bar("encoding prompts") as progress:
            encoded = []
            for batch, _ in self.batches:
                encoded.append(pipeline.encode(batch))
                progress(len(encoded), len(self.batches))
        self._conditions = _of_one_length(encoded)

    def draw(self, settings: dict[str, Any]) -> Iterator[tuple[np.ndarray, float]]:
        """Yield the images of each batch, and the seconds per image."""
        checked = self._pipeline.settings(**settings)
        side = self._pipeline.config.data.image_size
        for i, (texts, seeds) in enumerate(self.batches):
            requests = image_requests(texts, seed=seeds, guidance=checked.guidance)
            draw = functools.partial(
                self._pipeline.draw, requests, checked, (side, side), conditions=self._conditions[i]
            )
            if i == 0:
                draw()  # compiles, which is not timed
            start = time.perf_counter()
            images = draw()
            yield images, (time.perf_counter() - start) / len(images)


def _of_one_length(encoded: Sequence[TextConditions]) -> list[TextConditions]:
    """Pad to the longest, so that every batch runs the same compiled program."""
    streams = range(len(encoded[0].masks))
    lengths = [max(part.masks[k].shape[1] for part in encoded) for k in streams]
    return [pad_conditions(part, lengths) for part in encoded]


def _evaluations(pipeline: Pipeline, settings: dict[str, Any], run: Run) -> int:
    checked = pipeline.settings(**settings, **dataclasses.asdict(run))
    _, table = solver_tables(pipeline.process, sampler_of(checked))
    return len(table.at)


def _row(
    run: Run,
    evaluations: int,
    prompts: Sequence[ScenePrompt],
    images: np.ndarray,
    reference: np.ndarray,
    seconds: float,
) -> dict[str, Any]:
    scores = summarize(prompts, score_images(list(images), prompts))
    likeness = psnr(images, reference)
    return {
        **dataclasses.asdict(run),
        "evaluations": evaluations,
        "score": scores.overall,
        "images_scored": sum(scores.tasks[task].n for task in AVERAGED_TASKS),
        "tasks": {task: accuracy.accuracy for task, accuracy in scores.tasks.items()},
        "seconds_an_image": seconds,
        # JSON has no infinity: None for equal images.
        "psnr_to_usual": likeness if np.isfinite(likeness) else None,
    }


def _rows_so_far(file: Path, report: dict[str, Any]) -> dict[Run, dict[str, Any]]:
    """Return the rows of an interrupted comparison."""
    if not file.is_file():
        return {}
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        rows = {
            Run(row["sampler"], row["steps"], row["cache_interval"]): row for row in stored["rows"]
        }
    except (ValueError, KeyError, TypeError) as error:
        raise LiditError(f"{file} is not a comparison of samplers: name another --out") from error
    for name, value in report.items():
        if stored.get(name) != value:
            raise LiditError(
                f"{file} compares samplers with another {name}: name another --out, or delete it"
            )
    return rows


def _write(out: Path, content: dict[str, Any]) -> None:
    with atomic_file(out / "samplers.json") as file:
        file.write(json.dumps(content, indent=2).encode())
    with atomic_file(out / "samplers.md") as file:
        file.write(markdown(content["rows"], content["usual"]).encode())
