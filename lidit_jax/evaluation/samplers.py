"""Which sampler, at how many steps: a table of scores on scenes and of times."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lidit_jax.evaluation.scene_prompts import evaluation_prompts
from lidit_jax.evaluation.scene_scorer import score_images, summarise
from lidit_jax.output import atomic_file
from lidit_jax.pipeline import Pipeline
from lidit_jax.progress import progress_bar


def compare_samplers(
    checkpoint: str,
    out: Path,
    *,
    samplers: Sequence[str],
    steps: Sequence[int],
    per_task: int,
    seed: int,
    batch_size: int,
    settings: dict[str, Any],
) -> list[dict[str, Any]]:
    """Draws the same prompts from the same seeds with every sampler, scores and times them.

    Writes `samplers.json` and `samplers.md` after every row, so that a long run may be cut short.

    Args:
      checkpoint: as `Pipeline.from_checkpoint` takes it.
      out: folder of the two files.
      samplers: names, which must fit the checkpoint; empty for all that do.
      steps: numbers of steps.
      per_task: prompts of each task.
      seed: decides prompts and noise: image i is drawn from seed + i.
      batch_size: images at a time.
      settings: other sampling settings, for all rows.

    Returns:
      One row a sampler and number of steps.

    Raises:
      LiditError: when a sampler does not fit, before anything is drawn.
    """
    pipeline = Pipeline.from_checkpoint(checkpoint)
    rows = [
        pipeline.settings(**settings, sampler=sampler, steps=count)
        for sampler in samplers or pipeline.samplers
        for count in steps
    ]
    prompts = evaluation_prompts(per_task, seed)
    texts = [prompt.prompt for prompt in prompts]
    report = {
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": pipeline.fingerprint,
        "prompts": len(prompts),
        "seed": seed,
        "batch_size": batch_size,
        "settings": {name: value for name, value in settings.items() if value is not None},
        "rows": [],
    }
    with progress_bar("drawing") as progress:
        for done, row in enumerate(rows):
            chosen = {**settings, "sampler": row.sampler, "steps": row.steps}
            images, seconds = [], []
            pipeline(texts[:batch_size], seed=seed, **chosen)  # compiles, which is not timed
            for first in range(0, len(texts), batch_size):
                batch = texts[first : first + batch_size]
                start = time.perf_counter()
                images.extend(pipeline(batch, seed=seed + first, **chosen))
                seconds.append((time.perf_counter() - start) / len(batch))
            scores = summarise(prompts, score_images(images, prompts))
            report["rows"].append(
                {
                    "sampler": row.sampler,
                    "steps": row.steps,
                    "evaluations": 2 * row.steps - 1 if row.sampler == "heun" else row.steps,
                    "score": scores.overall,
                    "tasks": {task: a.accuracy for task, a in scores.tasks.items()},
                    # The median: a shorter last batch, or longer prompts, compile once more.
                    "seconds_an_image": statistics.median(seconds),
                }
            )
            with atomic_file(out / "samplers.json") as file:
                file.write(json.dumps(report, indent=2).encode())
            with atomic_file(out / "samplers.md") as file:
                file.write(markdown(report["rows"]).encode())
            progress(done + 1, len(rows))
    return report["rows"]


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table: samplers down, steps across; score, and seconds an image."""
    counts = sorted({row["steps"] for row in rows})
    cells = {
        (row["sampler"], row["steps"]): f"{row['score']:.1%} ({row['seconds_an_image']:.2f} s)"
        for row in rows
    }
    lines = [
        "| sampler | " + " | ".join(f"{count} steps" for count in counts) + " |",
        "|---|" + "---:|" * len(counts),
    ]
    for sampler in dict.fromkeys(row["sampler"] for row in rows):
        values = (cells.get((sampler, count), "") for count in counts)
        lines.append(f"| `{sampler}` | " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"
