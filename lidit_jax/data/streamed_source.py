"""Source of a run: its index, its records, and the captions that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from lidit_jax.config.data_settings import CaptionSettings, FilterSettings
from lidit_jax.data.filters import RecordColumns
from lidit_jax.data.sources.protocol import Place, RecordSource


@runtime_checkable
class RecordIndex(RecordColumns, Protocol):
    """Index: columns, and the place of each record."""

    def place(self, record: int) -> Place:
        """Return the place of a record."""
        ...


class SharedCaptions(NamedTuple):
    """Captions that generated records share: record i has those of record i modulo `distinct`."""

    records: int = 0
    """Number of first records that share captions; each later one has its own."""
    distinct: int = 0
    """Number of records whose captions they share."""


OWN_CAPTIONS = SharedCaptions()
"""Each record has its own."""


@dataclass(frozen=True)
class StreamedSource:
    """Source for training. It is sent to the reader processes."""

    index: RecordIndex
    records: RecordSource
    """Record source; several threads may read it at a time."""
    captions: CaptionSettings
    filters: FilterSettings
    """Filters used for the order; they also determine the usable captions."""
    shared: SharedCaptions = OWN_CAPTIONS

    @property
    def caption_count(self) -> int:
        """Number of records with captions of their own."""
        return len(self.index) - self.shared.records + self.shared.distinct

    def caption_numbers(self, records: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Return numbers below `caption_count`, equal for records with the same captions.

        Args:
          records: record numbers in this source.
        """
        first, distinct = self.shared
        later = records - first + distinct
        return np.where(records < first, records % max(distinct, 1), later)

    def caption_records(self, numbers: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Return a record with the captions of each number, see `caption_numbers`."""
        first, distinct = self.shared
        return np.where(numbers < distinct, numbers, numbers + first - distinct)
