"""Opening of the sources of a run by an index: scenes, an index, or files of any format."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt64

from lidit_jax.config.schema import Config
from lidit_jax.data.cache.folders import content_key, writable_cache_folder
from lidit_jax.data.index.build import build_index
from lidit_jax.data.index.open import Index, is_index, open_index
from lidit_jax.data.scenes.records import open_scene_records
from lidit_jax.data.sources.protocol import RecordSource
from lidit_jax.data.sources.registry import FORMATS, open_records
from lidit_jax.data.streamed_source import OWN_CAPTIONS, RecordIndex, SharedCaptions
from lidit_jax.errors import LiditError, quoted
from lidit_jax.io.paths import cache_dir, to_path
from lidit_jax.io.progress import slow_progress_bar

SCENES, INDEX = "scenes", "index"
SOURCES = (SCENES, INDEX, *FORMATS)
"""Values of `config.data.source`, and names before the colon in `config.data.mixture`."""
_WITHOUT_PATH = (SCENES, "emoji")
_PIECE = 2**20
"""Number of records digested at a time."""


@dataclass(frozen=True)
class OpenedSource:
    """Source with its index, before filters."""

    name: str
    """Name in messages."""
    index: RecordIndex
    records: RecordSource
    shared: SharedCaptions
    held_out_from: int | None
    """First record of a held-out split that the source has itself; None for none."""
    fingerprint: str
    """Digest of the records in their order."""
    names: UInt64[np.ndarray, " n"] | None
    """Digests of the records' keys; None for generated records."""
    place: Path | None
    """Folder of the index; None for generated records."""
    left_out: str = ""
    """Counts and examples of files that belong to no record."""


def check_source(config: Config) -> None:
    """Check the names of the sources, and that they support the configuration.

    Paths may still be missing: planning needs none.

    Raises:
      LiditError: for an unknown source, or scores without ground truth.
    """
    data, training = config.data, config.training
    if data.source not in SOURCES:
        raise LiditError(f"config.data.source={data.source!r}: choose one of {quoted(SOURCES)}")
    names = [data.source, *(split_source(source)[0] for source in data.mixture)]
    if training.score_every and SCENES not in names:
        raise LiditError(
            f"config.training.score_every={training.score_every}: config.data.source="
            f"{config.data.source!r} has no truth to score images by; set it to 0, or choose "
            f"{SCENES!r}"
        )


def run_sources(config: Config) -> list[str]:
    """Return the sources of a run, `config.data.path` first, as "NAME:PATH".

    Raises:
      LiditError: for an empty path, or a source that is named twice.
    """
    data = config.data
    if not data.path and data.source not in _WITHOUT_PATH:
        example = FORMATS[data.source].example if data.source in FORMATS else "index:photos-index"
        raise LiditError(
            f"config.data.path is empty: name what to read, such as {example.partition(':')[2]}"
        )
    path = "" if data.source == SCENES else data.path
    sources = [f"{data.source}:{path}", *data.mixture]
    for source in data.mixture:
        name, path = split_source(source)
        if not path and name not in _WITHOUT_PATH:
            raise LiditError(f"config.data.mixture: {source!r} names no path: write {name}:PATH")
    if len({*sources}) < len(sources):
        raise LiditError(
            "config.data.mixture names a source twice: set config.data.weights for its rate instead"
        )
    return sources


def split_source(source: str) -> tuple[str, str]:
    """Return the name of a source and its path.

    Raises:
      LiditError: when the text is no "NAME:PATH" of a known name.
    """
    name, _, path = source.partition(":")
    if name not in SOURCES:
        raise LiditError(
            f"config.data.mixture: {source!r} must be NAME:PATH, with a name of {quoted(SOURCES)}"
        )
    return name, path


def open_source(config: Config, source: str) -> OpenedSource:
    """Open a source of `run_sources`.

    An index is opened. Files of a format are scanned, and their index is kept in the cache: a later
    start scans only shards that have changed; processes that start together share the scan.

    Raises:
      LiditError: when the source cannot be opened, or has no record.
    """
    name, path = split_source(source)
    if name == SCENES:
        return _open_scenes(config)
    if name == INDEX:
        index = open_index(to_path(path))
        return _indexed(index, open_records(index.source), to_path(path))
    if path and is_index(path):
        raise LiditError(f"{source} is an index: write {INDEX} instead of {name}")
    records = open_records(source)
    data = config.data
    folder = to_path(data.cache_dir) if data.cache_dir else cache_dir() / "data"
    out = folder / content_key("index", {"source": repr(records)})
    with writable_cache_folder(out), slow_progress_bar("index") as progress:
        index = build_index(records, out, processes=max(data.workers, 1), progress=progress)
    return replace(_indexed(index, records, out), left_out=_left_out(records))


def _left_out(records: RecordSource) -> str:
    """Return which files of this machine belong to no record; buckets are not listed again."""
    # Only formats in which files may belong to no record have this.
    return "" if "://" in repr(records) else getattr(records, "left_out", str)()


def _open_scenes(config: Config) -> OpenedSource:
    index, records = open_scene_records(config)
    train = len(index.train)
    return OpenedSource(
        name=SCENES,
        index=index,
        records=records,
        shared=SharedCaptions(train, index.train.distinct_captions),
        held_out_from=train,
        fingerprint=hashlib.sha256(repr(index.train).encode()).hexdigest()[:32],
        names=None,
        place=None,
    )


def _indexed(index: Index, records: RecordSource, place: Path) -> OpenedSource:
    digest = hashlib.sha256()
    for start in range(0, len(index), _PIECE):
        for column in (index.name, index.content):
            digest.update(column[start : start + _PIECE].astype("<u8").tobytes())
    return OpenedSource(
        name=index.source,
        index=index,
        records=records,
        shared=OWN_CAPTIONS,
        held_out_from=None,
        fingerprint=digest.hexdigest()[:32],
        names=index.name,
        place=place,
    )
