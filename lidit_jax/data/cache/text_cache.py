"""Cached text features of all captions in use, of every stream."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Bool, Float, Int64

from lidit_jax.config.data_settings import ReadingSettings
from lidit_jax.data.cache import entries
from lidit_jax.data.cache.caption_encoding import CaptionEncoder
from lidit_jax.data.cache.differences import DATA
from lidit_jax.data.cache.feature_bytes import Storage, token_bytes, unpacked
from lidit_jax.data.cache.layout import Layout, ShardRange
from lidit_jax.data.cache.record_pool import RecordPool
from lidit_jax.data.cache.store import EncodedShard, Facts, Missing, Store, StorePlan, open_store
from lidit_jax.data.cache.unusable import UnusableRecords
from lidit_jax.data.filters import CaptionUse
from lidit_jax.data.opened_data import OpenedData
from lidit_jax.data.record_reading import UnusableRecordError, read_captions
from lidit_jax.data.skipped_records import Skipped
from lidit_jax.data.streamed_source import StreamedSource
from lidit_jax.encoders.conditions import PromptEncoders
from lidit_jax.encoders.layer_choice import stored_layers
from lidit_jax.models.flops import token_shape
from lidit_jax.parallel.distributed import print_on_main

_VERSION = 2
"""Version, increased when the same encoder files give other features: 1 ignored the RoPE scaling of
GGUF files."""
_USUAL_TOKENS = 64
"""Tokens of a caption, to estimate the size of a shard."""
_LENGTH_STEP = 8
_JOB = 64
"""Records whose captions a thread or process reads at a time."""


class CachedStream(NamedTuple):
    """Text features of one stream."""

    width: int
    """Width D of the features."""
    layers: int
    """Number n of the encoder's layers."""
    length: int
    """Number of tokens S of the longest caption, instruction included, rounded up."""
    prefix_length: int
    """Number of instruction tokens of every caption."""
    truncated: int
    """Number of captions that were cut."""
    prefix: Float[np.ndarray, "P *layers D"]
    """The instruction's features, shared by all captions; empty for a bidirectional encoder."""

    @property
    def token_shape(self) -> tuple[int, ...]:
        """Shape of one token's features: (D,), or (n, D) for several layers."""
        return token_shape(self.width, self.layers)


class TextCache:
    """Text features by record number, across all sources, and caption column.

    It can be pickled. `streams` describes the features.
    """

    def __init__(self, store: Store, captions: Captions, storage: Storage):
        """Bind a store to the records.

        Args:
          store: features; each source is a group.
          captions: captions of the records.
          storage: type of the stored values.
        """
        self.store = store
        self._captions = captions
        self._storage: Storage = storage
        self.streams = tuple(
            _stream(number, stored, store.facts)
            for number, stored in enumerate(store.extra["streams"])
        )

    def read(
        self, record: int, column: str
    ) -> tuple[tuple[Float[np.ndarray, "_S ... _D"], ...], tuple[Bool[np.ndarray, " _S"], ...]]:
        """Read the features and masks of a caption in every stream, padded on the right.

        Args:
          record: number of a record that is used.
          column: a column that its source uses, and that the record has.

        Raises:
          UnusableRecordError: when the caption could not be used.
          LiditError: when the shard is missing or damaged.
        """
        content = self.store.read(*self._captions.entry(record, column))
        shapes = [stream.token_shape for stream in self.streams]
        found = unpacked(entries.values_of(content), shapes, self._storage)
        pairs = [stream_rows(stream, own) for stream, own in zip(self.streams, found, strict=True)]
        features, masks = zip(*pairs, strict=True)
        return features, masks


def stream_rows(
    stream: CachedStream, own: Float[np.ndarray, "n *layers D"]
) -> tuple[Float[np.ndarray, "S *layers D"], Bool[np.ndarray, " S"]]:
    """Return padded features, with the shared instruction, and their mask."""
    shared, count = len(stream.prefix), len(stream.prefix) + len(own)
    features = np.zeros((stream.length, *stream.token_shape), ml_dtypes.bfloat16)
    features[:shared] = stream.prefix
    features[shared:count] = own
    return features, np.arange(stream.length) < count


class Captions:
    """Numbering of the captions of all sources: entry = caption number * columns + column."""

    def __init__(self, data: OpenedData):
        """Set the sources."""
        self._first = np.cumsum([0, *(len(members) for members in data.used)][:-1])
        self._sources = data.sources
        self.columns = [
            CaptionUse(source.index, source.filters, source.captions).columns
            for source in data.sources
        ]

    @property
    def counts(self) -> tuple[int, ...]:
        """Entries of each source."""
        pairs = zip(self._sources, self.columns, strict=True)
        return tuple(source.caption_count * len(columns) for source, columns in pairs)

    def entry(self, record: int, column: str) -> tuple[int, int]:
        """Return the source of a caption and its entry there.

        Args:
          record: record number, across all sources.
          column: caption column.
        """
        source = int(np.searchsorted(self._first, record, side="right")) - 1
        own = np.array([record - int(self._first[source])])
        number = int(self._sources[source].caption_numbers(own)[0])
        columns = self.columns[source]
        return source, number * len(columns) + columns.index(column)


def text_cache(
    data: OpenedData,
    encoders: PromptEncoders,
    folder: Path,
    reading: ReadingSettings,
    missing: Missing = "build",
    *,
    storage: Storage = "bfloat16",
    workers: int = 0,
    share: tuple[int, int] | None = None,
) -> TextCache:
    """Open the cached text features of all captions in use, after encoding what is missing.

    All processes call it together.

    Args:
      data: the data of the run.
      encoders: one per stream, on devices of this process only.
      folder: parent of all cached data, which may be in a bucket.
      reading: handling of records that cannot be read.
      missing: what to do about missing features, see `open_store`.
      storage: type of the stored values.
      workers: number of processes that read captions; 0 for threads.
      share: index of this process and number of processes; None for those of JAX.

    Raises:
      LiditError: see `open_store`; also when a record may not be skipped.
    """
    captions = Captions(data)
    token = sum(
        token_bytes(token_shape(stream.width, layers), storage)
        for stream, layers in zip(encoders.streams, encoders.layer_counts, strict=True)
    )
    plan = StorePlan(
        "text features",
        _description(data, captions, encoders, storage),
        Layout.of_size("text", captions.counts, _USUAL_TOKENS * token),
        {"streams": [_stored_stream(encoders, number) for number in range(len(encoders.streams))]},
    )
    with RecordPool(data.sources, workers) as pool:
        encode = _ShardEncoder(data, captions, CaptionEncoder(encoders, storage), reading, pool)
        cache = TextCache(open_store(folder, plan, encode, missing, share), captions, storage)
    print_on_main(_reports(cache, encoders))
    return cache


def _description(
    data: OpenedData, captions: Captions, encoders: PromptEncoders, storage: Storage
) -> dict[str, Any]:
    """Return everything that determines the features."""
    streams: dict[str, Any] = {}
    for number, (stream, layer) in enumerate(
        zip(encoders.streams, encoders.layers, strict=True), start=1
    ):
        parts = stream.fingerprint | stream.reading
        parts |= {"settings": stream.settings, "layer": stored_layers(layer)}
        streams |= {f"encoder {number}: {name}": value for name, value in parts.items()}
    return {
        "version": _VERSION,
        **streams,
        "instruction": encoders.prompt_format.prefix,
        "lowercase": encoders.prompt_format.lowercase,
        "max_prompt_tokens": encoders.max_prompt_tokens,
        "text_storage": storage,
        DATA: data.caption_identity,
        "columns": [list(columns) for columns in captions.columns],
    }


def _stored_stream(encoders: PromptEncoders, number: int) -> dict[str, Any]:
    """Return what the header keeps of a stream."""
    stream, instruction = encoders.streams[number], encoders.frozen[number].instruction
    length = len(stream.tokenizer.prefix(encoders.prompt_format))
    layers = encoders.layer_counts[number]
    prefix = np.zeros((0, *token_shape(stream.width, layers)), ml_dtypes.bfloat16)
    if instruction is not None:
        prefix = np.asarray(instruction.features.astype(ml_dtypes.bfloat16))
    return {
        "width": stream.width,
        "layers": layers,
        "prefix_length": length,
        "prefix": base64.b64encode(prefix.tobytes()).decode(),
    }


def _stream(number: int, stored: dict[str, Any], facts: Facts) -> CachedStream:
    prefix = np.frombuffer(base64.b64decode(stored["prefix"]), ml_dtypes.bfloat16)
    longest = int(facts.largest.get(f"tokens {number}", 0))
    length = max(longest, stored["prefix_length"] + 1)
    width, layers = stored["width"], stored.get("layers", 1)  # older stores have one, unnamed
    return CachedStream(
        width=width,
        layers=layers,
        length=-(-length // _LENGTH_STEP) * _LENGTH_STEP,
        prefix_length=stored["prefix_length"],
        truncated=int(facts.total.get(f"truncated {number}", 0)),
        prefix=prefix.reshape(-1, *token_shape(width, layers)),
    )


def _reports(cache: TextCache, encoders: PromptEncoders) -> list[str]:
    """Return lines about captions that were cut, and about the errors of int8."""
    lines, total = [], cache.store.facts.total
    for number, (stream, encoder) in enumerate(zip(cache.streams, encoders.streams, strict=True)):
        if stream.truncated:
            lines.append(
                f"{encoder.name}: {stream.truncated:,} captions exceed "
                "config.encoders.max_prompt_tokens, or what the encoder reads: their ends are cut"
            )
        if squares := total.get(f"squares {number}"):
            share = (total[f"errors {number}"] / squares) ** 0.5
            lines.append(f"{encoder.name}: int8 differs by {share:.2%} of the features' RMS")
    return lines


class _ReadJob(NamedTuple):
    """Captions to read: source, and number in it and caption columns of each record."""

    source: int
    records: list[tuple[int, tuple[str, ...]]]


_Caption = str | UnusableRecordError


def _read_captions(sources: Sequence[StreamedSource], job: _ReadJob) -> list[list[_Caption]]:
    return [_captions(sources[job.source], own, columns) for own, columns in job.records]


def _captions(source: StreamedSource, own: int, columns: tuple[str, ...]) -> list[_Caption]:
    try:
        record = read_captions(source.records, source.index.place(own))
    except UnusableRecordError as error:
        return [error] * len(columns)
    found: list[_Caption] = []
    for column in columns:
        try:
            found.append(record.caption(column))
        except UnusableRecordError as error:
            found.append(error)
    return found


class _ShareOf:
    """Converts the number of texts done in any stream to a number of entries."""

    def __init__(self, whole: int, texts: int, advance: Callable[[int], None]):
        self._whole, self._texts, self._advance = whole, texts, advance
        self._done = 0

    def __call__(self, texts: int) -> None:
        before = self._whole * self._done // self._texts
        self._done += texts
        self._advance(self._whole * self._done // self._texts - before)


class _ShardEncoder:
    """Encodes the captions of a shard."""

    def __init__(
        self,
        data: OpenedData,
        captions: Captions,
        encoder: CaptionEncoder,
        reading: ReadingSettings,
        pool: RecordPool,
    ):
        self._data, self._captions, self._encoder, self._pool = data, captions, encoder, pool
        self._unusable = UnusableRecords(data.sources, reading)
        self._streams = len(encoder.encoders.streams)

    def __call__(self, shard: ShardRange, advance: Callable[[int], None]) -> EncodedShard:
        rows = list[Skipped]()
        captions = self._read(shard, rows)
        texts = [*dict.fromkeys(found for found in captions.values() if isinstance(found, str))]
        share = _ShareOf(shard.stop - shard.start, self._streams * len(texts), advance)
        streams = [self._encoder(number, texts, share) for number in range(self._streams)]
        number_of = {text: number for number, text in enumerate(texts)}
        first: dict[str, int] = {}
        result = list[bytes]()
        for number in range(shard.stop - shard.start):
            found = captions.get(number)
            if found is None:
                result.append(entries.UNUSED)
            elif isinstance(found, UnusableRecordError):
                result.append(entries.without_values(found))
            elif found in first:
                result.append(entries.same_as(first[found]))
            else:
                first[found] = number
                values = [stream.packed[number_of[found]] for stream in streams]
                result.append(entries.with_values(b"".join(values)))
        total, largest = dict[str, float](), dict[str, float]()
        for number, stream in enumerate(streams):
            largest[f"tokens {number}"] = stream.tokens
            total[f"truncated {number}"] = stream.truncated
            if stream.squares:
                total |= {f"squares {number}": stream.squares, f"errors {number}": stream.errors}
        return EncodedShard(result, Facts(total, largest), rows)

    def _read(self, shard: ShardRange, rows: list[Skipped]) -> dict[int, _Caption]:
        """Return the captions of the entries in use, by number in the shard.

        Args:
          shard: the shard.
          rows: receives the rows of unusable records.
        """
        source, columns = shard.group, self._captions.columns[shard.group]
        numbers, which = np.divmod(np.arange(shard.start, shard.stop), len(columns))
        own = self._data.sources[source].caption_records(numbers)
        used = self._usable(source, numbers, own)[np.arange(len(own)), which]
        wanted: dict[int, list[tuple[int, int]]] = {}
        for place in np.flatnonzero(used).tolist():
            wanted.setdefault(int(own[place]), []).append((int(which[place]), place))
        records = [(r, tuple(columns[c] for c, _ in chosen)) for r, chosen in wanted.items()]
        jobs = (_ReadJob(source, records[i : i + _JOB]) for i in range(0, len(records), _JOB))
        read = itertools.chain.from_iterable(self._pool.map(_read_captions, jobs))
        result: dict[int, _Caption] = {}
        for (record, chosen), found in zip(wanted.items(), read, strict=True):
            self._unusable.read(1)
            for (_, place), caption in zip(chosen, found, strict=True):
                if isinstance(caption, UnusableRecordError):
                    rows.append(self._unusable.row(source, record, caption))
                result[place] = caption
        return result

    def _usable(
        self, source: int, numbers: Int64[np.ndarray, " r"], own: Int64[np.ndarray, " r"]
    ) -> Bool[np.ndarray, "r columns"]:
        """Return which captions of records are in use.

        Args:
          source: number of the source.
          numbers: caption numbers.
          own: a record with each.
        """
        opened, members = self._data.sources[source], self._data.used[source]
        usable = CaptionUse(opened.index, opened.filters, opened.captions).usable(own)
        buckets = np.array([members.bucket(record) for record in own.tolist()])
        # Of records that share captions, another one may be in use.
        used = (buckets < len(self._data.shapes)) | (numbers < opened.shared.distinct)
        return usable & used[:, None]
