"""Sample of a data set's captions that shows how long its captions are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from lidit_jax.data.filters import CaptionUse
from lidit_jax.data.record_reading import UnusableRecordError, read_captions
from lidit_jax.data.streamed_source import StreamedSource

_LONGEST = 64
"""Captions with the most characters, of each column."""
_PIECE = 2**20
"""Number of records looked through at a time, so that memory does not grow with their number."""
_THREADS = 16


class _Wanted(NamedTuple):
    """One caption of a record."""

    source: StreamedSource
    record: int
    column: str


def caption_sample(
    sources: Sequence[StreamedSource],
    first: Sequence[Int64[np.ndarray, " _r"]],
    share: tuple[int, int] = (0, 1),
) -> list[str]:
    """Read the captions of some records, and those with the most characters of all.

    Captions that cannot be read are left out.

    Args:
      sources: of the captions.
      first: some records of each source.
      share: which part to read, and the number of parts.
    """
    part, parts = share
    wanted = [
        one
        for source, records in zip(sources, first, strict=True)
        for one in _wanted(source, records)
    ][part::parts]
    with ThreadPoolExecutor(_THREADS) as pool:
        return [caption for caption in pool.map(_read, wanted) if caption]


def _wanted(source: StreamedSource, records: Int64[np.ndarray, " r"]) -> Iterator[_Wanted]:
    use = CaptionUse(source.index, source.filters, source.captions)
    usable = use.usable(records)
    for number, column in enumerate(use.columns):
        some = records[usable[:, number]]
        longest = _longest(source.index.caption_chars[column], use, number)
        distinct = np.unique(source.caption_numbers(np.concatenate([some, longest])))
        for record in source.caption_records(distinct).tolist():
            yield _Wanted(source, record, column)


def _longest(chars: np.ndarray, use: CaptionUse, number: int) -> Int64[np.ndarray, " r"]:
    """Return the records with the longest usable captions of a column, in one pass."""
    best = np.zeros(0, np.int64)
    for start in range(0, len(chars), _PIECE):
        part = slice(start, start + _PIECE)
        usable = start + np.flatnonzero(use.usable(part)[:, number])
        both = np.concatenate([best, usable])
        # Stable, so that every process reads the same.
        best = both[np.argsort(-chars[both].astype(np.int64), kind="stable")[:_LONGEST]]
    return best


def _read(wanted: _Wanted) -> str:
    source, record, column = wanted
    try:
        return read_captions(source.records, source.index.place(record)).caption(column)
    except UnusableRecordError:
        return ""
