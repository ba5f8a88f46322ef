"""Scores images of scenes against what their prompts claim, on pixels alone."""

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
    """Whether an image shows what its prompt claims, and if not, why."""

    correct: bool
    reason: str
    """What is wrong, in one line; empty when nothing is."""


@dataclass(frozen=True)
class Accuracy:
    """A share of correct images with its 95% Wilson interval."""

    accuracy: float
    correct: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, verdicts: Sequence[Verdict]) -> Accuracy:
        """The share of `verdicts` that are correct."""
        correct = sum(verdict.correct for verdict in verdicts)
        n = len(verdicts)
        low, high = wilson_interval(correct, n)
        return cls(correct / n if n else math.nan, correct, n, low, high)


@dataclass(frozen=True)
class SceneReport:
    """The scores of a set of images."""

    overall: float
    """Mean accuracy of the six `AVERAGED_TASKS`, or of those that occur."""
    tasks: dict[str, Accuracy]
    seen: Accuracy | None
    """Prompts of the tasks that hold combinations out, those known from training; None if none."""
    held_out: Accuracy | None
    """Prompts with a combination that training never shows; None if there are none."""

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dictionaries and numbers."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(self.to_dict(), indent=2)


def score(image: UInt8[np.ndarray, "H W 3"], claim: Claim) -> Verdict:
    """Checks one image: exactly the claimed objects, with the claimed attributes and relation.

    Raises:
      LiditError: when `image` is not an array of uint8 [H, W, 3].
    """
    failure = claim.failure(detect(image))
    return Verdict(failure is None, failure or "")


def score_images(
    images: Sequence[UInt8[np.ndarray, "H W 3"]], prompts: Sequence[ScenePrompt]
) -> list[Verdict]:
    """Checks image `i` against prompt `i`.

    Raises:
      LiditError: when there are not as many images as prompts, or an image has the wrong type.
    """
    if len(images) != len(prompts):
        raise LiditError(f"{len(images)} images for {len(prompts)} prompts: give one a prompt")
    return [score(image, p.claim) for image, p in zip(images, prompts, strict=True)]


def summarize(prompts: Sequence[ScenePrompt], verdicts: Sequence[Verdict]) -> SceneReport:
    """Accuracy a task, with 95% intervals, and their mean over the six averaged ones."""
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
    """Wilson's score interval of a proportion (E. B. Wilson, 1927), 95% by default."""
    if n == 0:
        return 0.0, 1.0
    share = correct / n
    center = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)
