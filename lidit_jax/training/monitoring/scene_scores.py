"""Scene benchmark scores of a model during training."""

from __future__ import annotations

from typing import Any

import jax

from lidit_jax.config.schema import Config
from lidit_jax.encoders.conditions import PromptEncoders, TextConditions
from lidit_jax.evaluation.scene_prompts import TASKS, evaluation_prompts
from lidit_jax.evaluation.scene_scorer import score_images, summarize
from lidit_jax.sampling.guided_sampler import GuidedSampler
from lidit_jax.sampling.image_batch import ImageBatch

_SEED = 1
"""Seed other than that of `lidit eval scenes`, whose prompts must not select the checkpoint."""
_BATCH = len(TASKS)
"""Images per batch: a divisor of their number, so that one compiled program serves all."""


class SceneScores:
    """Scorer that generates images of scene prompts and counts the correct ones."""

    def __init__(self, config: Config, encoders: PromptEncoders):
        """Encode the prompts, `config.training.score_prompts` per task.

        Raises:
          LiditError: when one is longer than `config.encoders.max_prompt_tokens`.
        """
        self._prompts = evaluation_prompts(config.training.score_prompts, _SEED)
        self._conditions, _ = encoders.encode([prompt.prompt for prompt in self._prompts])
        self._size, self._settings = config.data.image_size, config.sampling

    def __call__(
        self, sampler: GuidedSampler, params: Any, unconditional: TextConditions
    ) -> dict[str, float]:
        """Return the mean accuracy of the six averaged tasks, `scene_score`, and each task's."""
        images = []
        for first in range(0, len(self._prompts), _BATCH):
            rows = slice(first, first + _BATCH)
            batch = ImageBatch(
                conditions=jax.tree.map(lambda leaf, rows=rows: leaf[rows], self._conditions),
                unconditional=unconditional,
                seeds=range(first, first + _BATCH),
                size=(self._size, self._size),
                settings=self._settings,
            )
            images += list(sampler(params, batch))
        report = summarize(self._prompts, score_images(images, self._prompts))
        tasks = {f"scene_score/{name}": task.accuracy for name, task in report.tasks.items()}
        return {"scene_score": report.overall} | tasks
