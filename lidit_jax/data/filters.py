"""Filters over an index: the records to train on, and why each other one is dropped."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from lidit_jax.config.data_settings import CaptionSettings, FilterSettings
from lidit_jax.data.caption_flags import CaptionFlag
from lidit_jax.data.near_duplicates import copies
from lidit_jax.data.sources.protocol import CAPTION
from lidit_jax.errors import LiditError, quoted

_PIECE = 2**20
"""Number of records filtered at a time, so that memory does not grow with their number."""
_CONDITION = re.compile(r"\s*(\S.*?)\s*(>=|<=|>|<)\s*(\S+)\s*")
_COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_KINDS = {
    "url": CaptionFlag.URL,
    "tags": CaptionFlag.TAGS,
    "few_letters": CaptionFlag.FEW_LETTERS,
}
_SCRIPTS = {"latin": CaptionFlag.LATIN, "han": CaptionFlag.HAN, "other": CaptionFlag.OTHER}


@runtime_checkable
class RecordColumns(Protocol):
    """Columns of an index, one array per column."""

    @property
    def width(self) -> np.ndarray:
        """Width of upright images, in pixels."""
        ...

    @property
    def height(self) -> np.ndarray:
        """Height of upright images, in pixels."""
        ...

    @property
    def problem(self) -> np.ndarray:
        """Problem codes; 0 for usable records."""
        ...

    @property
    def content(self) -> np.ndarray:
        """64-bit digests of images with their captions."""
        ...

    @property
    def caption_chars(self) -> Mapping[str, np.ndarray]:
        """Characters of cleaned captions, by column; 0 for none."""
        ...

    @property
    def caption_flags(self) -> Mapping[str, np.ndarray]:
        """Bits of `CaptionFlag`, by column."""
        ...

    @property
    def numbers(self) -> Mapping[str, np.ndarray]:
        """Scores, by column; NaN for none."""
        ...

    @property
    def perceptual_hash(self) -> np.ndarray | None:
        """64-bit perceptual hash of each image, if computed."""
        ...

    def __len__(self) -> int:
        """Return the number of records."""
        ...


class Filtered(NamedTuple):
    """Result of the filters."""

    keep: Bool[np.ndarray, " n"]
    """Records that are used."""
    removed: dict[str, int]
    """Number of records that each filter removed of those that passed the earlier ones."""


def filter_records(
    index: RecordColumns, settings: FilterSettings, captions: CaptionSettings
) -> Filtered:
    """Apply all filters, in the order of the settings.

    Args:
      index: columns of the records.
      settings: settings of the filters.
      captions: caption columns in use.

    Raises:
      LiditError: for a column that the index lacks, and when no record is left.
    """
    rules = [*_size_rules(settings), *_score_rules(index, settings)]
    use = CaptionUse(index, settings, captions)
    keep = np.empty(len(index), bool)
    removed = dict.fromkeys(["problem", *(name for name, _ in rules), *use.steps], 0)
    for start in range(0, len(index), _PIECE):
        part = slice(start, min(start + _PIECE, len(index)))
        left = _apply(~index.problem[part].astype(bool), None, "problem", removed)
        for name, holds in rules:
            left = _apply(holds(index, part), left, name, removed)
        for name, usable in zip(use.steps, use.after_each_step(part), strict=True):
            left = _apply(np.logical_or.reduce(usable, axis=1), left, name, removed)
        keep[part] = left
    if settings.duplicates != "keep":
        name = f"duplicates ({settings.duplicates})"
        removed[name] = _drop_copies(index, settings, keep)
    if not keep.any():
        told = ", ".join(f"{count} by {name}" for name, count in removed.items() if count)
        raise LiditError(
            f"the filters leave none of {len(index)} records ({told or 'there is none'}): "
            "loosen them"
        )
    return Filtered(keep, {name: count for name, count in removed.items() if count})


class CaptionUse:
    """Captions of a record that the rules for captions allow.

    `columns` are the columns in use and `rates` their sampling rates.
    """

    def __init__(self, index: RecordColumns, settings: FilterSettings, captions: CaptionSettings):
        """Check the names in the settings.

        Args:
          index: the records' columns.
          settings: the rules.
          captions: the columns in use.

        Raises:
          LiditError: for a caption column that the index lacks, and an unknown kind or script.
        """
        self.columns, self.rates = _used_columns(captions, index)
        self._chars = [_column("captions", index.caption_chars, name) for name in self.columns]
        self._least = settings.min_caption_chars
        self._without = [
            (kind, _named("captions_without", kind, _KINDS)) for kind in settings.captions_without
        ]
        self._scripts = sum(
            _named("caption_scripts", script, _SCRIPTS) for script in settings.caption_scripts
        )
        self._flags = (
            [_column("kinds of captions", index.caption_flags, name) for name in self.columns]
            if self._without or self._scripts
            else []
        )
        self.steps = [
            f"min_caption_chars={self._least}",
            *(f"captions_without={kind!r}" for kind, _ in self._without),
            *([f"caption_scripts={settings.caption_scripts}"] if self._scripts else []),
        ]
        """Names of the rules."""

    def usable(self, records: slice | np.ndarray) -> Bool[np.ndarray, "n columns"]:
        """Return which of the columns in use pass all rules.

        Args:
          records: numbers of records in the index, or a range of them.
        """
        return self.after_each_step(records)[-1]

    def after_each_step(self, records: slice | np.ndarray) -> list[Bool[np.ndarray, "n columns"]]:
        """Return the same after the first rule, the first two, and so on."""
        chars = np.stack([np.asarray(column[records]) for column in self._chars], axis=1)
        found = [chars >= self._least]
        if self._flags:
            flags = np.stack([np.asarray(column[records]) for column in self._flags], axis=1)
            for _, bit in self._without:
                found.append(found[-1] & (flags & bit == 0))
            if self._scripts:
                found.append(found[-1] & (flags & self._scripts != 0))
        return found


def _apply(
    holds: Bool[np.ndarray, " n"],
    left: Bool[np.ndarray, " n"] | None,
    name: str,
    removed: dict[str, int],
) -> Bool[np.ndarray, " n"]:
    before = len(holds) if left is None else np.count_nonzero(left)
    after = holds if left is None else left & holds
    removed[name] += int(before - np.count_nonzero(after))
    return after


_Rule = tuple[str, Callable[[RecordColumns, slice], np.ndarray]]


def _size_rules(settings: FilterSettings) -> Iterable[_Rule]:
    """Yield the size limits that are set, by their names."""

    def measure(index: RecordColumns, part: slice, what: str) -> np.ndarray:
        width = np.asarray(index.width[part]).astype(np.int64)
        height = np.asarray(index.height[part]).astype(np.int64)
        if what == "aspect":
            return width / np.maximum(height, 1)
        return {"width": width, "height": height, "area": width * height}[what]

    for what in ("width", "height", "area", "aspect"):
        for side, compare in (("min", operator.ge), ("max", operator.le)):
            name = f"{side}_{what}"
            limit = getattr(settings, name)
            if limit:
                yield (
                    f"{name}={limit}",
                    lambda index, part, what=what, compare=compare, limit=limit: compare(
                        measure(index, part, what), limit
                    ),
                )


def _score_rules(index: RecordColumns, settings: FilterSettings) -> Iterable[_Rule]:
    """Yield conditions on numbers, by their texts. A missing number is NaN and fails all."""
    for condition in settings.scores:
        match = _CONDITION.fullmatch(condition)
        try:
            name, comparison, limit = match.groups() if match else ("", "", "")
            number = float(limit)
        except ValueError:
            raise LiditError(
                f"scores={condition!r}: write a number of the index, a comparison and a limit, "
                "such as 'aesthetic>=4.7'"
            ) from None
        column, compare = _column("numbers", index.numbers, name), _COMPARISONS[comparison]
        yield (
            f"scores={condition!r}",
            lambda _, part, column=column, compare=compare, number=number: compare(
                np.asarray(column[part]), number
            ),
        )


def _drop_copies(
    index: RecordColumns, settings: FilterSettings, keep: Bool[np.ndarray, " n"]
) -> int:
    """Remove duplicates from `keep`, and return their number."""
    near = settings.duplicates == "near"
    hashes = index.perceptual_hash if near else index.content
    if hashes is None:
        raise LiditError(
            "duplicates='near': the index holds no perceptual hashes: make it again with them, or "
            "use 'exact'"
        )
    records = np.flatnonzero(keep)
    rank = np.arange(len(records))
    if settings.duplicate_kept == "largest":
        area = np.asarray(index.width)[records].astype(np.int64) * np.asarray(index.height)[records]
        rank[np.argsort(-area, kind="stable")] = np.arange(len(records))
    distance = settings.duplicate_distance if near else 0
    dropped = records[copies(np.asarray(hashes)[records].astype(np.uint64), rank, distance)]
    keep[dropped] = False
    return len(dropped)


def _used_columns(
    captions: CaptionSettings, index: RecordColumns
) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Return columns with a rate above 0, and their rates."""
    columns = captions.columns or (_only_column(sorted(index.caption_chars)),)
    rates = captions.rates or (1.0,) * len(columns)
    if len(rates) != len(columns) or min(rates, default=0) < 0 or not any(rates):
        raise LiditError(
            f"caption rates {rates} for the columns {quoted(columns)}: give each column "
            "a rate, and one at least more than 0"
        )
    used = [pair for pair in zip(columns, rates, strict=True) if pair[1]]
    return tuple(name for name, _ in used), tuple(rate for _, rate in used)


def _only_column(names: Sequence[str]) -> str:
    """Return the caption column to use where none is named."""
    if CAPTION in names:
        return CAPTION
    if len(names) == 1:
        return names[0]
    raise LiditError(
        "there are several caption columns: set config.data.captions.columns to some of "
        f"{quoted(names)}"
        if names
        else "there are no captions: add some, or use another source"
    )


def _column(what: str, columns: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in columns:
        known = f"there are {quoted(sorted(columns))}" if columns else "there are none"
        raise LiditError(f"the index has no {name!r} among its {what}: {known}")
    return columns[name]


def _named(field: str, name: str, known: Mapping[str, CaptionFlag]) -> int:
    if name not in known:
        raise LiditError(f"{field}={name!r}: choose of {quoted(known)}")
    return int(known[name])
