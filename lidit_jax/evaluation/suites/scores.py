"""Scores of a suite with bootstrap intervals over prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from lidit_jax.data.keyed_random import subkey
from lidit_jax.evaluation.suites.suite import Item, Results, ScoredSuite

RESAMPLES = 10_000
"""Resampled sets of prompts per interval."""
LEVEL = 0.95
"""Share of resampled scores inside of an interval."""
_AT_ONCE = 1_000_000
"""Resampled values in memory at once."""


@dataclass(frozen=True)
class Score:
    """Mean over prompts, from 0 to 1, with its bootstrap interval."""

    score: float
    low: float
    high: float
    prompts: int
    images: int


@dataclass(frozen=True)
class SuiteScores:
    """Scores of one model on one suite."""

    tasks: dict[str, Score]
    """By name of the task; without tasks that have no results."""
    mean: Score | None
    """Mean of the scores of the tasks in the suite's mean; None if one of them has no results, or
    the suite has no mean."""
    not_scored: tuple[str, ...]
    """Tasks of which prompts were drawn, but no results were given."""


def suite_scores(
    suite: ScoredSuite, items: Sequence[Item], results: Results, seed: int = 0
) -> SuiteScores:
    """Score each task, and the mean of the tasks.

    A score is the mean over prompts of the mean over a prompt's images. Its interval is the
    percentile interval of the bootstrap over prompts (B. Efron, 1979): images of one prompt are
    not independent, so whole prompts are resampled, within their task.

    Args:
      suite: the suite.
      items: prompts that were drawn.
      results: scores of the images of each prompt; whole tasks may be missing.
      seed: seed of the resampling.
    """
    drawn = [task for task in suite.tasks if any(item.task == task.name for item in items)]
    scores, resampled = {}, {}
    for task in drawn:
        own = [
            results[item.key] for item in items if item.task == task.name and item.key in results
        ]
        if own:
            means = np.asarray([np.mean(samples) for samples in own])
            resampled[task.name] = _resampled_means(means, subkey(seed, suite.name, task.name))
            images = sum(len(samples) for samples in own)
            scores[task.name] = _score(means.mean(), resampled[task.name], len(own), images)
    averaged = [task.name for task in suite.tasks if task.in_mean]
    mean = None
    if suite.mean and all(name in scores for name in averaged):
        parts = [scores[name] for name in averaged]
        mean = _score(
            np.mean([part.score for part in parts]),
            np.mean([resampled[name] for name in averaged], axis=0),
            sum(part.prompts for part in parts),
            sum(part.images for part in parts),
        )
    missing = tuple(task.name for task in drawn if task.name not in scores)
    return SuiteScores(scores, mean, missing)


def table_columns(suite: ScoredSuite, scores: SuiteScores) -> Mapping[str, Score]:
    """Return the scores that have a column in the paper's table 1, by column."""
    columns = {
        task.column: scores.tasks[task.name]
        for task in suite.tasks
        if task.column and task.name in scores.tasks
    }
    if suite.mean_column and scores.mean is not None:
        columns[suite.mean_column] = scores.mean
    return columns


def _resampled_means(values: Float64[np.ndarray, " n"], key: int) -> Float64[np.ndarray, " R"]:
    """Return the means of resampled values, drawn with replacement."""
    rng = np.random.default_rng(key)
    n = len(values)
    rows = max(_AT_ONCE // n, 1)
    blocks = (min(rows, RESAMPLES - first) for first in range(0, RESAMPLES, rows))
    return np.concatenate([values[rng.integers(n, size=(k, n))].mean(axis=1) for k in blocks])


def _score(
    mean: float | np.floating, resampled: Float64[np.ndarray, " R"], prompts: int, images: int
) -> Score:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Score(float(mean), float(low), float(high), prompts, images)
