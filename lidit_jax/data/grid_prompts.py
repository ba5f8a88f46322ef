"""Prompts of a run's image grid, with defaults from the training data."""

from __future__ import annotations

from lidit_jax.config.schema import Config
from lidit_jax.data.image_source import ImageSource
from lidit_jax.data.source_kinds import source_kind

_COUNT = 8
"""Number of captions used as prompts: one row of the grid."""


def grid_prompts(config: Config, source: ImageSource) -> tuple[str, ...]:
    """Return the grid's prompts: the user's, those of the kind of data, or captions.

    Captions are taken at equal distances from the first, without duplicates, in record order.

    Args:
      config: of the run; `training.prompts` takes precedence.
      source: the training images.
    """
    return config.training.prompts or source_kind(config).prompts or _spread_captions(source)


def _spread_captions(source: ImageSource) -> tuple[str, ...]:
    captions = list(dict.fromkeys(source.caption(i) for i in range(source.distinct_captions)))
    count = min(len(captions), _COUNT)
    return tuple(captions[i * len(captions) // count] for i in range(count))
