"""Opening of an index: its columns are memory-mapped, so that only used parts are read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt8, UInt32, UInt64

from lidit_jax.data.cache.folders import alone
from lidit_jax.data.index.columns import COLUMNS, FORMAT, NEAR, TABLES, decode_key
from lidit_jax.data.index.merge import INDEX, KEYS, PROBLEMS, SHARD
from lidit_jax.data.sources.protocol import Place
from lidit_jax.errors import LiditError
from lidit_jax.io.paths import cache_dir, in_bucket, to_path
from lidit_jax.io.progress import Progress

_BLOCK = 2**24


class RecordProblem(NamedTuple):
    """Reason why a record cannot be used."""

    record: int
    shard: str
    key: str
    kind: str
    """Name of a `Problem`, in lower case."""
    message: str


@dataclass(frozen=True, eq=False)
class Index:
    """Metadata of every record of a source, by record number.

    Columns are arrays on the disk; their pages count as memory only while they are used.
    """

    source: str
    """Source, in the syntax of `lidit_jax.data.sources.registry.open_records`."""
    fingerprint: str
    """Digest of keys, images and captions; independent of their order and location."""
    shards: tuple[str, ...]
    """Names of the source's shards."""
    shard: UInt32[np.ndarray, " n"]
    """Number of each record's shard."""
    offset: Int64[np.ndarray, " n"]
    length: Int64[np.ndarray, " n"]
    """Length of the record, see `Place`."""
    width: UInt32[np.ndarray, " n"]
    height: UInt32[np.ndarray, " n"]
    """Height of the upright image, in pixels; 0 if it cannot be opened."""
    problem: UInt8[np.ndarray, " n"]
    """`lidit_jax.data.index.columns.Problem` of the record; 0 if it can be used."""
    name: UInt64[np.ndarray, " n"]
    """Digest of the key."""
    content: UInt64[np.ndarray, " n"]
    """Digest of image and captions; 0 if the image cannot be opened."""
    caption_chars: Mapping[str, UInt32[np.ndarray, " n"]]
    """Characters of each cleaned caption, by column; 0 for none."""
    caption_flags: Mapping[str, UInt8[np.ndarray, " n"]]
    """Bits of `lidit_jax.data.caption_flags.CaptionFlag`, by column."""
    numbers: Mapping[str, Float64[np.ndarray, " n"]]
    """Scores and other numbers, by column; NaN for none."""
    perceptual_hash: UInt64[np.ndarray, " n"] | None
    """Hash of each image's appearance (`lidit_jax.data.index.perceptual_hash`); None if not
    requested."""
    counts: Mapping[str, int]
    """Number of records with a problem, by kind."""
    folder: Path
    """Folder of the columns on this machine."""
    key_end: Int64[np.ndarray, " n"]
    """End of each key in `keys`."""
    keys: UInt8[np.ndarray, " bytes"]
    about: Mapping[str, Any]
    """Content of `index.json`."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the folder only: another process maps the columns instead of copying them."""
        return _open, (self.folder, self.about)

    def __len__(self) -> int:
        return len(self.offset)

    def key(self, record: int) -> str:
        """Return the name of a record."""
        begin = int(self.key_end[record - 1]) if record else 0
        return decode_key(self.keys[begin : int(self.key_end[record])].tobytes())

    def place(self, record: int) -> Place:
        """Return the place from which the source reads a record."""
        return Place(
            self.shards[self.shard[record]],
            self.key(record),
            int(self.offset[record]),
            int(self.length[record]),
        )

    def problems(self) -> Iterator[RecordProblem]:
        """Yield every record with a problem, in order."""
        with (self.folder / PROBLEMS).open(encoding="utf-8") as lines:
            for line in lines:
                yield RecordProblem(**json.loads(line))


def open_index(path: Path, progress: Progress | None = None) -> Index:
    """Open an index built by `lidit data index`.

    An index in a bucket is copied into the user's cache first, once.

    Args:
      path: its folder.
      progress: receives the count of bytes copied and the total.

    Raises:
      LiditError: when there is none, or it is damaged or of another version.
    """
    about = _about(path)
    try:
        folder = path / about["columns"]
        if in_bucket(path):
            folder = _fetch(folder, about["bytes"], progress or Progress())
        return _open(folder, about)
    except (KeyError, OSError, ValueError, TypeError) as error:
        raise LiditError(
            f"{path} is a damaged index ({error}): delete it and make it again"
        ) from error


def is_index(place: str | Path) -> bool:
    """Return whether a place is the folder of an index; `hf://` and the like never are."""
    text = os.fspath(place)
    if "://" in text and not text.startswith(("gs://", "s3://")):
        return False
    return (to_path(text) / INDEX).is_file()


def _about(path: Path) -> dict[str, Any]:
    file = path / INDEX
    try:
        about = json.loads(file.read_bytes())
        version = about["format"]
    except (FileNotFoundError, NotADirectoryError):
        raise LiditError(
            f"{path} holds no index: make it with lidit data index SOURCE --out={path}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LiditError(f"{file} is damaged ({error}): make the index again") from error
    if version != FORMAT:
        raise LiditError(
            f"{path} is an index of format {version}, and this version of lidit reads format "
            f"{FORMAT}: make it again"
        )
    return about


def _open(folder: Path, about: Mapping[str, Any]) -> Index:
    records = about["records"]
    for name, size in about["bytes"].items():
        if (folder / name).stat().st_size != size:
            raise ValueError(f"{name} is not {size} bytes long")

    def column(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.npy", mmap_mode="r")

    def table(name: str, rows: list[str]) -> dict[str, np.ndarray]:
        return dict(zip(rows, column(name), strict=True)) if rows else {}

    columns = {name: column(name) for name in (SHARD, *COLUMNS)}
    tables = {
        name: table(name, about["number_names" if name == "numbers" else "caption_names"])
        for name in TABLES
    }
    arrays = [*columns.values(), *(row for rows in tables.values() for row in rows.values())]
    if any(len(array) != records for array in arrays):
        raise ValueError("its columns differ in length")
    return Index(
        source=about["source"],
        fingerprint=about["fingerprint"],
        shards=tuple(about["shards"]),
        perceptual_hash=column(NEAR) if about["perceptual_hashes"] else None,
        counts=about["problems"],
        folder=folder,
        keys=np.memmap(folder / KEYS, np.uint8, "r") if about["bytes"][KEYS] else _no_keys(),
        about=about,
        caption_chars=tables["caption_chars"],
        caption_flags=tables["caption_flags"],
        numbers=tables["numbers"],
        **columns,
    )


def _no_keys() -> UInt8[np.ndarray, " bytes"]:
    """Return an empty array, as an empty file cannot be mapped."""
    return np.zeros(0, np.uint8)


def _fetch(folder: Path, sizes: Mapping[str, int], progress: Progress) -> Path:
    """Return the columns' folder on this machine; it appears when all files are copied."""
    # The name changes with the source, its shards and their versions.
    local = cache_dir() / "indexes" / folder.name
    local.parent.mkdir(parents=True, exist_ok=True)
    with alone(local):
        if local.is_dir():
            return local
        partial = local.with_name(f"{local.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        done, total = 0, sum(sizes.values())
        for name in sizes:
            with (folder / name).open("rb") as source, (partial / name).open("wb") as sink:
                while block := source.read(_BLOCK):
                    sink.write(block)
                    done += len(block)
                    progress(done, total)
        os.replace(partial, local)
    return local
