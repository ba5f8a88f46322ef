"""Interface of a benchmark suite: its prompts, the files of its images, and its results."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lidit_jax.data.keyed_random import subkey

Results = Mapping[str, Sequence[float]]
"""Scores of each prompt's images, 0 to 1, by the prompt's key."""


@dataclass(frozen=True)
class Item:
    """One prompt of a suite."""

    key: str
    """Name of the prompt, unique in the suite."""
    task: str
    """Part of the suite with a score of its own."""
    prompt: str
    place: int
    """Position in the file of prompts, from 0; names files where a suite numbers them."""
    record: str = ""
    """The official record of the prompt, for suites whose scorer reads it."""


@dataclass(frozen=True)
class Picture:
    """One file to draw: an image of a prompt, or a grid of several."""

    file: str
    """Name in the output folder."""
    item: Item
    samples: tuple[int, ...]
    """Indices of the images that it shows, from 0, in the order of reading."""


@dataclass(frozen=True)
class Task:
    """Part of a suite with a score of its own."""

    name: str
    """Name in the suite's files."""
    column: str = ""
    """Its column of the paper's table 1; empty if it has none."""
    in_mean: bool = True
    """Whether the suite's mean includes it."""


@dataclass(frozen=True)
class DrawingPlan:
    """What to draw of a suite."""

    items: Sequence[Item]
    """All prompts of the suite."""
    limit: int | None
    """First prompts of each task to draw; None for all."""
    images_per_prompt: int
    seed: int
    size: tuple[int, int] | None
    """Height and width in pixels; None for those of training."""
    settings: Mapping[str, Any]
    """Sampling settings as for `Pipeline`; None for the checkpoint's own."""


@runtime_checkable
class Suite(Protocol):
    """Benchmark suite to draw; a new one is one module with a class of these members."""

    name: str
    """Name in commands and records."""
    title: str
    """Name in reports."""
    folder: str
    """Name of its folder of prompts below `$LIDIT_BENCHMARKS`; empty if it has none."""
    images_per_prompt: int
    """Images per prompt in its protocol."""
    official_prompts: int
    """Number of prompts in the official set; 0 if there is none."""
    square: bool
    """Whether its scorer reads square images only."""

    def items(self, source: Path) -> list[Item]:
        """Read the prompts. Raises `LiditError` when the files are not those of the suite."""
        ...

    def pictures(self, item: Item, count: int) -> list[Picture]:
        """Return the files for `count` images of a prompt.

        Raises `LiditError` for a count that the official scorer cannot read.
        """
        ...

    def text_files(self, items: Sequence[Item], count: int) -> dict[str, str]:
        """Return the text files beside the images, by name."""
        ...


@runtime_checkable
class ScoredSuite(Suite, Protocol):
    """Suite with an official scorer, whose results can be read."""

    tasks: tuple[Task, ...]
    mean: str
    """Name of the mean over tasks; empty if it has none."""
    mean_column: str
    """Column of the mean in the paper's table 1; empty if it has none."""
    scale: float
    """Score of perfect images in its tables."""

    def read_results(self, path: Path, items: Sequence[Item], count: int) -> Results:
        """Read what the official scorer wrote about `count` images of each prompt.

        A task without any result may be missing from what is returned; whatever else is missing,
        surplus or unreadable raises `LiditError`.
        """
        ...

    def scorer_commands(self, out: str, side: int, count: int) -> list[str]:
        """Return the commands of the official scorer, for images of a side in pixels."""
        ...


def first_of_each_task(items: Sequence[Item], limit: int | None) -> list[Item]:
    """Return the first `limit` prompts of each task, or all for None."""
    seen: dict[str, int] = {}
    chosen = []
    for item in items:
        seen[item.task] = seen.get(item.task, 0) + 1
        if limit is None or seen[item.task] <= limit:
            chosen.append(item)
    return chosen


def prompts_sha256(items: Sequence[Item]) -> str:
    """Return the sha256 of the keys, tasks and prompts of a suite."""
    digest = hashlib.sha256()
    for item in items:
        for text in (item.key, item.task, item.prompt):
            digest.update(len(text.encode()).to_bytes(8, "little") + text.encode())
    return digest.hexdigest()


def sample_seed(seed: int, suite: str, key: str, sample: int) -> int:
    """Return the seed of an image's noise, which depends on nothing else that is drawn.

    Args:
      seed: seed of the whole drawing.
      suite: name of the suite.
      key: key of the prompt.
      sample: index of the image, from 0.
    """
    return subkey(seed, "suite", suite, key, sample) % 2**32
