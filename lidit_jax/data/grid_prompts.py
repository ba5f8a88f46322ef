"""Prompts of a run's image grid, with defaults from the training data."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

from lidit_jax.config.schema import Config
from lidit_jax.data.filters import CaptionUse
from lidit_jax.data.opened_data import OpenedData
from lidit_jax.data.record_reading import UnusableRecordError, read_captions
from lidit_jax.data.scenes.records import PROMPTS
from lidit_jax.data.source_opening import SCENES
from lidit_jax.data.streamed_source import StreamedSource

_COUNT = 8
"""Number of captions used as prompts: one row of the grid."""
_TRIES = 8
"""Records read for each of them, as captions may be equal, or unusable."""


def grid_prompts(config: Config, data: OpenedData) -> tuple[str, ...]:
    """Return the grid's prompts: the user's, those of scenes, or captions.

    Captions are taken at equal distances over the records of all sources, without duplicates.

    Args:
      config: of the run; `training.prompts` takes precedence.
      data: the data of the run.
    """
    if config.training.prompts:
        return config.training.prompts
    if config.data.source == SCENES:
        return PROMPTS
    return _spread_captions(data)


def _spread_captions(data: OpenedData) -> tuple[str, ...]:
    """Return up to eight captions, one of each eighth of the records."""
    counts = np.stack([members.counts for members in data.used])
    total = int(counts.sum())
    starts = [i * total // _COUNT for i in range(_COUNT + 1)]
    found: dict[str, None] = {}
    for start, stop in itertools.pairwise(starts):
        for rank in range(start, min(start + _TRIES, stop)):
            caption = next(_captions(*_record(data, counts, rank)), None)
            if caption is not None and caption not in found:
                found[caption] = None
                break
    return tuple(found)


def _record(
    data: OpenedData, counts: Int64[np.ndarray, "sources buckets"], rank: int
) -> tuple[StreamedSource, int]:
    """Return a record in use by its rank among all, by source and bucket."""
    ends = np.cumsum(counts.ravel())
    cell = int(np.searchsorted(ends, rank, side="right"))
    source, bucket = divmod(cell, counts.shape[1])
    inside = rank - int(ends[cell]) + int(counts[source, bucket])
    record = data.used[source].records(bucket, np.array([inside]))
    return data.sources[source], int(record[0])


def _captions(source: StreamedSource, record: int) -> Iterator[str]:
    """Yield the usable captions of a record."""
    use = CaptionUse(source.index, source.filters, source.captions)
    (usable,) = use.usable(np.array([record]))
    try:
        content = read_captions(source.records, source.index.place(record))
        for column, allowed in zip(use.columns, usable.tolist(), strict=True):
            if allowed:
                yield content.caption(column)
    except UnusableRecordError:
        return
