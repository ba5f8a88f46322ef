"""Prompts, the summary of their scores, and the picture of hits and misses."""

import hashlib
import json
import math

import numpy as np
import pytest

from lidit_jax.data.scenes import SceneSource
from lidit_jax.data.scenes.held_out import claim_held_out
from lidit_jax.data.scenes.scene import SceneObject
from lidit_jax.errors import LiditError
from lidit_jax.evaluation import scene_prompts
from lidit_jax.evaluation.scene_grid import hits_and_misses
from lidit_jax.evaluation.scene_prompts import (
    AVERAGED_TASKS,
    HELD_OUT_TASKS,
    TASKS,
    evaluation_prompts,
)
from lidit_jax.evaluation.scene_scorer import Verdict, summarize, wilson_interval

# Of the 400 prompts of 50 a task, as version 0.1 drew them.
DIGEST = "7858771b73120512e4f8c983a7c033208c0ed0583fff9d75c167042b54f42d59"
BINDING = [
    "a picture of a large moon and a small heart",
    "a photo of a small heart and a large cross",
    "a photo of a small heart and a large triangle",
]
pytestmark = pytest.mark.output

HIT, MISS = Verdict(True, ""), Verdict(False, "nothing there")


def test_prompts_cover_every_task_and_are_reproducible():
    prompts = evaluation_prompts(20, seed=1)
    assert [p.task for p in prompts] == [task for task in TASKS for _ in range(20)]
    assert prompts == evaluation_prompts(20, seed=1)
    assert prompts != evaluation_prompts(20, seed=2)
    assert len({p.prompt for p in prompts}) == len(prompts)


def test_prompts_and_places_of_tasks_that_have_had_scores_stay():
    """Scores of models stay comparable: the sizes come last, and two sizes keep their draws."""
    prompts = evaluation_prompts(50)
    assert [p.task for p in prompts[400:]] == ["size"] * 50
    binding = [p.prompt for p in prompts if p.task == "size_binding"]
    assert binding[:3] == BINDING
    digest = hashlib.sha256("\n".join(p.prompt for p in prompts[:400]).encode()).hexdigest()
    assert digest == DIGEST


def test_sizes_are_asked_of_one_object_and_told_apart_from_medium():
    prompts = [p for p in evaluation_prompts(20) if p.task == "size"]
    groups = [p.claim.groups[0] for p in prompts]
    assert {group.size for group in groups} == {"small", "large"}
    assert all(len(p.claim.groups) == 1 and p.claim.count == 1 for p in prompts)
    things = {
        size: SceneObject("red", groups[0].shape, "solid", size, 0.5, 0.5, 0.1)
        for size in ("small", "medium", "large")
    }
    for size, thing in things.items():
        assert (prompts[0].claim.failure([thing]) is None) == (size == groups[0].size)


def test_half_of_the_prompts_of_three_tasks_are_held_out():
    for prompt_task in HELD_OUT_TASKS:
        drawn = [p for p in evaluation_prompts(20) if p.task == prompt_task]
        assert sum(p.held_out for p in drawn) == 10
        assert all(p.held_out == claim_held_out(p.claim) for p in drawn)


def test_training_never_says_a_held_out_prompt():
    source = SceneSource(records=3000)
    said = {source.scene(i).claim for i in range(len(source))}
    assert not said & {p.claim for p in evaluation_prompts(50) if p.held_out}


def test_chinese_prompts_make_the_same_claims():
    english, chinese = evaluation_prompts(5), evaluation_prompts(5, language="zh")
    assert all(not p.prompt.isascii() for p in chinese)
    assert {p.task for p in chinese} == {p.task for p in english}
    with pytest.raises(LiditError, match="give at least 1"):
        evaluation_prompts(0)


def test_a_task_whose_prompts_never_turn_up_is_named(monkeypatch):
    monkeypatch.setattr(scene_prompts, "_ATTEMPTS", 0)
    with pytest.raises(LiditError, match="no prompt of the task single_object was found"):
        evaluation_prompts(1)


def test_overall_is_the_mean_of_six_tasks():
    prompts = evaluation_prompts(4)
    verdicts = [HIT if p.task in ("colors", "counting", "texture") else MISS for p in prompts]
    report = summarize(prompts, verdicts)
    assert tuple(AVERAGED_TASKS) == tuple(report.tasks)[:6]
    assert report.overall == pytest.approx(2 / 6)
    assert report.tasks["texture"].accuracy == 1.0
    assert report.held_out.n == report.seen.n == 6
    assert report.held_out.correct == 2


def test_the_report_is_json():
    prompts = evaluation_prompts(2)
    report = summarize(prompts, [HIT] * len(prompts))
    read = json.loads(report.to_json())
    assert read == report.to_dict()
    assert read["tasks"]["position"]["n"] == 2
    assert math.isclose(read["overall"], 1.0)


def test_wilson_intervals():
    # The textbook values for 8 of 10 and for none of 10.
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_hits_are_framed_green_and_misses_red():
    prompts = evaluation_prompts(1)[:2]
    grid = np.asarray(hits_and_misses([*np.zeros((2, 8, 8, 3), np.uint8)], prompts, [HIT, MISS]))
    middle = grid.shape[1] // 2
    colors = [{tuple(c) for c in half.reshape(-1, 3)} for half in np.split(grid, [middle], axis=1)]
    green, red = (24, 150, 74), (205, 40, 40)
    assert green in colors[0]
    assert red not in colors[0]
    assert red in colors[1]
    assert green not in colors[1]
