"""Data of a run, opened: sources, image shapes, training order, held-out records, and a report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from lidit_jax.config.data_settings import CaptionSettings, FilterSettings
from lidit_jax.config.schema import Config
from lidit_jax.data.bucket_members import BucketMembers
from lidit_jax.data.buckets import LEFT_OUT, Buckets, bucket_counts, joined
from lidit_jax.data.contents import MOST_DIGESTS, Contents
from lidit_jax.data.filters import CaptionUse, filter_records
from lidit_jax.data.held_out import HeldOut, held_out_counts, smallest
from lidit_jax.data.keyed_random import subkey
from lidit_jax.data.order import Order
from lidit_jax.data.source_opening import OpenedSource, check_source, open_source, run_sources
from lidit_jax.data.streamed_source import StreamedSource
from lidit_jax.errors import LiditError, quoted

_FEWEST = 20
"""At most one record in so many is held out."""


@dataclass(frozen=True, eq=False)
class OpenedData:
    """Data of a run. Record numbers run across all sources, see `Order.source`."""

    sources: tuple[StreamedSource, ...]
    shapes: tuple[tuple[int, int], ...]
    """Height and width in pixels of each bucket; some may have no records."""
    used: tuple[BucketMembers, ...]
    """Records in use of each source, for training and held out."""
    order: Order
    """Training batches."""
    held_out: HeldOut
    """Validation batches."""
    contents: Contents
    """Training records, to report changes on resuming."""
    identity: str
    """Digest of the records in use, their order and their shapes; names cached latents."""
    caption_identity: str
    """Digest of the records in use, their order and caption columns; names cached features."""
    report: tuple[str, ...]
    """Lines to print: records removed, records and cropping per shape, shapes merged."""

    def __len__(self) -> int:
        """Return the number of training records."""
        return self.contents.records


@dataclass(frozen=True, eq=False)
class _Split:
    """Use of the records of one source."""

    opened: OpenedSource
    source: StreamedSource
    buckets: UInt8[np.ndarray, " n"]
    """Bucket of each record in use; `LEFT_OUT` for others."""
    train: Bool[np.ndarray, " n"]
    """Records that train."""
    held_out: Int64[np.ndarray, " k"]
    """Numbers of the held-out records."""
    removed: dict[str, int]
    """Number of records that each filter removed."""

    @property
    def training(self) -> UInt8[np.ndarray, " n"]:
        """Bucket of each training record; `LEFT_OUT` for others."""
        return np.where(self.train, self.buckets, np.uint8(LEFT_OUT))


def open_data(config: Config, step: int) -> OpenedData:
    """Open all sources, filter their records, and assign shapes and uses.

    Nothing is decoded. All processes get the same result.

    Args:
      config: of the run.
      step: divisor of the sides of all images, in pixels: patch times downsampling of the
        autoencoder.

    Raises:
      LiditError: when a source cannot be opened, has no record that can be used, or does not
        support the configuration.
    """
    check_source(config)
    data = config.data
    if data.image_size % step:
        raise LiditError(
            f"config.data.image_size={data.image_size} must be a multiple of {step} (patch x "
            "downsampling of the autoencoder)"
        )
    buckets = Buckets(data.image_size, step, data.buckets)
    opened = [open_source(config, source) for source in run_sources(config)]
    _check_filters(opened, data.filters)
    _check_columns(opened, data.captions)
    splits = _hold_out([_assigned(one, config, buckets) for one in opened], config)
    counts = sum(bucket_counts(split.training, len(buckets)) for split in splits)
    goes_to = buckets.join_small(np.asarray(counts).tolist(), config.training.batch_size)
    splits = [replace(split, buckets=joined(split.buckets, goes_to)) for split in splits]
    sources = tuple(split.source for split in splits)
    used = tuple(BucketMembers(split.buckets, len(buckets)) for split in splits)
    training = [BucketMembers(split.training, len(buckets)) for split in splits]
    order = Order(training, config.training.batch_size, config.seed, data.weights)
    facts = {
        "records": [one.fingerprint for one in opened],
        "filters": [asdict(source.filters) for source in sources],
        "columns": [_use(source).columns for source in sources],
        "captions": [source.caption_count for source in sources],
    }
    places = {"shapes": buckets.shapes, "counts": [members.counts.tolist() for members in used]}
    return OpenedData(
        sources=sources,
        shapes=buckets.shapes,
        used=used,
        order=order,
        held_out=_held_out(splits, order, config.training.batch_size),
        contents=_contents(splits, facts),
        identity=_digest(facts | places),
        caption_identity=_digest(facts),
        report=tuple(_report(splits, buckets, np.asarray(counts), goes_to, config)),
    )


def _check_filters(opened: Sequence[OpenedSource], filters: FilterSettings) -> None:
    if filters != FilterSettings() and all(one.names is None for one in opened):
        raise LiditError(
            f"config.data.filters are for records of an index: {opened[0].name} are generated; "
            "set them back"
        )


def _check_columns(opened: Sequence[OpenedSource], captions: CaptionSettings) -> None:
    known = {column for one in opened for column in one.index.caption_chars}
    missing = [column for column in captions.columns if column not in known]
    if missing:
        raise LiditError(
            f"config.data.captions.columns={captions.columns}: there is no {quoted(missing)}, "
            f"there are {quoted(sorted(known))}"
        )


def _own_captions(opened: OpenedSource, captions: CaptionSettings) -> CaptionSettings:
    """Return the settings for the columns that one source has."""
    if not captions.columns:
        return captions
    here = [i for i, column in enumerate(captions.columns) if column in opened.index.caption_chars]
    if not here:
        raise LiditError(
            f"none of config.data.captions.columns={captions.columns}, it has "
            f"{quoted(sorted(opened.index.caption_chars))}: name one of them too"
        )
    rates = captions.rates or (1.0,) * len(captions.columns)
    return CaptionSettings(tuple(captions.columns[i] for i in here), tuple(rates[i] for i in here))


@contextmanager
def _naming(opened: OpenedSource) -> Iterator[None]:
    """Put the name of a source before errors about its records, and its index after them."""
    try:
        yield
    except LiditError as error:
        look = f" (lidit data inspect {opened.place} shows them)" if opened.place else ""
        raise LiditError(f"{opened.name}: {error}{look}") from error


def _assigned(opened: OpenedSource, config: Config, buckets: Buckets) -> _Split:
    """Filter the records of a source, and assign their buckets."""
    filters = FilterSettings() if opened.names is None else config.data.filters
    index = opened.index
    with _naming(opened):
        captions = _own_captions(opened, config.data.captions)
        keep, removed = filter_records(index, filters, captions)
    source = StreamedSource(index, opened.records, captions, filters, opened.shared)
    assigned = buckets.assign_kept(index.width, index.height, keep)
    return _Split(opened, source, assigned, keep, np.zeros(0, np.int64), removed)


def _hold_out(splits: Sequence[_Split], config: Config) -> list[_Split]:
    """Divide the records of each source among training and validation."""
    used = [_training_count(split) for split in splits]
    rates = config.data.weights or used
    counts = held_out_counts(used, rates, config.data.validation_records)
    return [
        _own_split(split, count) if split.opened.names is None else _chosen(split, count)
        for split, count in zip(splits, counts, strict=True)
    ]


def _training_count(split: _Split) -> int:
    return int(np.count_nonzero(split.train[: split.opened.held_out_from]))


def _own_split(split: _Split, count: int) -> _Split:
    """Hold out the first records of the source's own split; the rest of it is not used."""
    first = split.opened.held_out_from
    assert first is not None  # all generated sources have one
    held_out = np.arange(first, min(first + count, len(split.buckets)))
    buckets, train = split.buckets.copy(), split.train.copy()
    buckets[first + len(held_out) :] = LEFT_OUT
    train[first:] = False
    return replace(split, buckets=buckets, train=train, held_out=held_out)


def _chosen(split: _Split, count: int) -> _Split:
    """Hold out the records with the smallest digests of their keys, at most one in twenty."""
    names = split.opened.names
    assert names is not None
    most = int(np.count_nonzero(split.train)) // _FEWEST
    held_out = smallest(names, split.train, max(min(count, most), 1))
    train = split.train.copy()
    if most:  # with fewer records, training needs the held-out one too
        train[held_out] = False
    return replace(split, train=train, held_out=held_out)


def _held_out(splits: Sequence[_Split], order: Order, batch_size: int) -> HeldOut:
    first = np.cumsum([0, *(len(split.buckets) for split in splits)])
    records = np.concatenate(
        [split.held_out + at for split, at in zip(splits, first, strict=False)]
    )
    buckets = np.concatenate([split.buckets[split.held_out] for split in splits])
    ranks = np.lexsort((records, buckets))
    return HeldOut(order, records[ranks], buckets[ranks], batch_size)


def _contents(splits: Sequence[_Split], facts: dict[str, Any]) -> Contents:
    count = sum(int(np.count_nonzero(split.train)) for split in splits)
    generated = [split.opened.names is None for split in splits]
    if any(generated) or count > MOST_DIGESTS:
        alone = generated == [True]
        return Contents(count, splits[0].opened.fingerprint if alone else _digest(facts))
    digests = np.empty((count, 2), np.uint64)
    first = 0
    for number, split in enumerate(splits):
        train = np.flatnonzero(split.train)
        here = digests[first : first + len(train)]
        # Keys of several sources may be equal.
        key = np.uint64(subkey(number, "contents") if number else 0)
        here[:, 0] = np.asarray(split.opened.names)[train] ^ key
        here[:, 1] = np.asarray(split.source.index.content)[train]
        first += len(train)
    return Contents.of_digests(digests)


def _use(source: StreamedSource) -> CaptionUse:
    return CaptionUse(source.index, source.filters, source.captions)


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _report(
    splits: Sequence[_Split],
    buckets: Buckets,
    before: Int64[np.ndarray, " k"],
    goes_to: UInt8[np.ndarray, " k"],
    config: Config,
) -> Iterator[str]:
    """Yield the lines of the report.

    Args:
      splits: use of the records of each source, with merged shapes.
      buckets: all shapes.
      before: training records of each shape before merging.
      goes_to: the shape that each was merged into.
      config: of the run.
    """
    for split in splits:
        total = len(split.buckets)
        if split.opened.left_out:
            yield f"{split.opened.name}: left out: {split.opened.left_out}"
        if split.removed:
            kept = total - sum(split.removed.values())
            told = ", ".join(f"{count:,} by {name}" for name, count in split.removed.items())
            yield f"{split.opened.name}: {kept:,} of {total:,} records are used; removed: {told}"
        if "problem" in split.removed:
            yield f"the problems are told by lidit data inspect {split.opened.place}"
    train = sum(int(np.count_nonzero(split.train)) for split in splits)
    held_out = sum(len(split.held_out) for split in splits)
    yield f"{train:,} records to train on, {held_out:,} for the validation loss"
    merged = [i for i, to in enumerate(goes_to.tolist()) if to != i and before[i]]
    if merged:
        told = ", ".join(
            f"{_size(buckets.shapes[i])} ({before[i]:,} records) into "
            f"{_size(buckets.shapes[goes_to[i]])}"
            for i in merged
        )
        size = config.training.batch_size
        yield f"image shapes with fewer records than a batch of {size} are merged: {told}"
    if len(buckets) == 1:
        return
    for split in splits:
        index = split.source.index
        rows = buckets.report(index.width, index.height, split.training)
        told = ", ".join(
            f"{_size(row.shape)}: {row.records:,} ({row.cut:.1%} cropped)"
            for row in rows
            if row.records
        )
        yield f"{split.opened.name}: records by width x height in pixels: {told}"


def _size(shape: tuple[int, int]) -> str:
    height, width = shape
    return f"{width}x{height}"
