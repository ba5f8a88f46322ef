"""Scores during training: of images drawn for prompts that the benchmark does not use."""

import random

import numpy as np
import pytest

from lidit_jax.data.scenes import render
from lidit_jax.data.scenes.sampling import realize
from lidit_jax.data.source_opening import check_source
from lidit_jax.encoders.conditions import PromptEncoders, TextConditions
from lidit_jax.errors import LiditError
from lidit_jax.evaluation.scene_prompts import TASKS, evaluation_prompts
from lidit_jax.training.monitoring.scene_scores import SceneScores


class Painter:
    """Stands in for the sampler: paints what every second prompt asks for, else nothing."""

    def __init__(self, prompts):
        self._prompts, self.rows = prompts, []

    def __call__(self, params, batch):
        self.rows += [len(mask) for mask in batch.conditions.masks]
        images = np.zeros((len(batch.seeds), *batch.size, 3), np.uint8)
        for row, number in enumerate(batch.seeds):
            prompt = self._prompts[number]
            if number % 2 == 0:
                scene = realize(prompt.task, prompt.claim, random.Random(number))
                images[row] = render(scene, batch.size[0])
        return images


def test_the_score_is_the_share_of_right_images_and_each_task_has_its_own(tiny_config):
    config = tiny_config("training.score_every=4", "training.score_prompts=2")
    scores = SceneScores(config, PromptEncoders(config.encoders))
    painter = Painter(evaluation_prompts(2, seed=1))
    found = scores(painter, params=None, unconditional=TextConditions((), ()))
    assert found == {"scene_score": 0.5} | {f"scene_score/{task}": 0.5 for task in TASKS}
    assert painter.rows == [9, 9] * 2, "two streams, two batches"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("training.score_every=4", "data.source=emoji"), "has no truth to score images by; set"),
        (("training.score_every=4", "training.task=vae"), "only text-to-image models have a score"),
        (("training.best_by=scene_score",), "needs config.training.score_every greater than 0"),
    ],
)
def test_scores_without_a_truth_and_choices_without_scores_are_refused(
    settings, message, tiny_config
):
    with pytest.raises(LiditError, match=message):
        check_source(tiny_config(*settings))
