"""Checks that an official scorer's results are those of all expected images, and no others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lidit_jax.errors import LiditError
from lidit_jax.evaluation.suites.suite import Item, Results, ScoredSuite


def complete(
    suite: ScoredSuite,
    found: Mapping[tuple[str, int], float],
    items: Sequence[Item],
    count: int,
    where: str,
) -> Results:
    """Return the scores of each prompt's images.

    Args:
      suite: the suite, which names the images in messages.
      found: score by the prompt's key and the image's index.
      items: expected prompts.
      count: expected images per prompt.
      where: file of the results.

    Raises:
      LiditError: when scores are missing, surplus, or not numbers from -1 to 1; with their number
        and the first one.
    """
    wanted = {(item.key, sample): item for item in items for sample in range(count)}
    missing = [place for place in wanted if place not in found]
    if missing:
        item, sample = wanted[missing[0]], missing[0][1]
        file = next(p.file for p in suite.pictures(item, count) if sample in p.samples)
        raise LiditError(
            f"{where}: {len(missing)} of {len(wanted)} expected images have no result (images "
            f"missing, or the file cut off?), first image {sample} of {file}: score all images"
        )
    surplus = [place for place in found if place not in wanted]
    if surplus:
        key, sample = surplus[0]
        raise LiditError(
            f"{where}: {len(surplus)} results are of images that are not expected, first image "
            f"{sample} of {key!r}: was another --limit, --images-per-prompt or set of prompts "
            "drawn?"
        )
    for (key, sample), score in found.items():
        if not (math.isfinite(score) and -1 <= score <= 1):
            raise LiditError(f"{where}: the score of image {sample} of {key!r} is {score}")
    return {item.key: [found[item.key, sample] for sample in range(count)] for item in items}


def check_prompt_set(other: Sequence[str], total: int, where: str) -> None:
    """Raise `LiditError` when results belong to other prompts.

    Args:
      other: names of results that do not fit the prompts.
      total: number of results.
      where: where the names are from.
    """
    if other:
        raise LiditError(
            f"{where}: {len(other)} of {total} are of another prompt set, first {other[0]}: name "
            "the prompts that were drawn with --benchmark"
        )
