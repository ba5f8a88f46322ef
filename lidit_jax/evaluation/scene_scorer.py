"""Scoring of scene images against the claims of their prompts, from pixels alone."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from lidit_jax.data.scenes.scene import Claim
from lidit_jax.errors import LiditError
from lidit_jax.evaluation.scene_detector import detect
from lidit_jax.evaluation.scene_prompts import AVERAGED_TASKS, TASKS, ScenePrompt


@dataclass(frozen=True)
class Verdict:
    """Whether an image satisfies its prompt's claim, and why not."""

    correct: bool
    reason: str
    """Reason for a miss, in one line; empty for a hit."""


@dataclass(frozen=True)
class Accuracy:
    """Share of correct images with its 95% Wilson interval."""

    accuracy: float
    correct: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, verdicts: Sequence[Verdict]) -> Accuracy:
        """Compute the accuracy of `verdicts`."""
        correct = sum(verdict.correct for verdict in verdicts)
        n = len(verdicts)
        low, high = wilson_interval(correct, n)
        return cls(correct / n if n else math.nan, correct, n, low, high)


@dataclass(frozen=True)
class SceneReport:
    """Scores of a set of images."""

    overall: float
    """Mean accuracy over those of the six `AVERAGED_TASKS` that occur."""
    tasks: dict[str, Accuracy]
    seen: Accuracy | None
    """Accuracy on combinations seen in training, in tasks with held-out ones; None if none."""
    held_out: Accuracy | None
    """Accuracy on combinations held out from training; None if there are none."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain dictionaries and numbers."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=2)


def score(image: UInt8[np.ndarray, "H W 3"], claim: Claim) -> Verdict:
    """Score one image: exactly the claimed objects, with the claimed attributes and relation.

    Raises:
      LiditError: when `image` is not an array of uint8 [H, W, 3].
    """
    failure = claim.failure(detect(image))
    return Verdict(failure is None, failure or "")


def score_images(
    images: Sequence[UInt8[np.ndarray, "H W 3"]], prompts: Sequence[ScenePrompt]
) -> list[Verdict]:
    """Score image `i` against prompt `i`.

    Raises:
      LiditError: when the numbers of images and prompts differ, or an image has the wrong type.
    """
    if len(images) != len(prompts):
        raise LiditError(f"{len(images)} images for {len(prompts)} prompts: give one per prompt")
    return [score(image, p.claim) for image, p in zip(images, prompts, strict=True)]


def summarize(prompts: Sequence[ScenePrompt], verdicts: Sequence[Verdict]) -> SceneReport:
    """Compute the accuracy per task, with 95% intervals, and the mean of the six averaged tasks."""
    from_task: dict[str, list[Verdict]] = {}
    for prompt, verdict in zip(prompts, verdicts, strict=True):
        from_task.setdefault(prompt.task, []).append(verdict)
    tasks = {task: Accuracy.of(from_task[task]) for task in TASKS if task in from_task}
    averaged = [tasks[task].accuracy for task in AVERAGED_TASKS if task in tasks]
    splitting = {prompt.task for prompt in prompts if prompt.held_out}
    halves = {
        held_out: [
            verdict
            for prompt, verdict in zip(prompts, verdicts, strict=True)
            if prompt.task in splitting and prompt.held_out == held_out
        ]
        for held_out in (False, True)
    }
    return SceneReport(
        overall=sum(averaged) / len(averaged) if averaged else math.nan,
        tasks=tasks,
        seen=Accuracy.of(halves[False]) if halves[False] else None,
        held_out=Accuracy.of(halves[True]) if halves[True] else None,
    )


def wilson_interval(correct: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (E. B. Wilson, 1927), 95% by default."""
    if n == 0:
        return 0.0, 1.0
    share = correct / n
    center = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)
