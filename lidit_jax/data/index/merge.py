"""Merging of per-shard index parts into columns over all records."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64

from lidit_jax.data.index.columns import (
    COLUMNS,
    FORMAT,
    MISSING,
    NEAR,
    TABLES,
    Part,
    Problem,
    decode_key,
)
from lidit_jax.errors import LiditError
from lidit_jax.io.bucket_sync import upload_folder
from lidit_jax.io.output import atomic_file
from lidit_jax.io.paths import in_bucket
from lidit_jax.io.progress import Progress

INDEX = "index.json"
"""Description of an index; the last file that is written."""
PROBLEMS = "problems.jsonl"
"""Every problem: record, its shard and key, kind and message."""
COLUMNS_NAME = "columns"
"""Prefix of the columns' folder name."""
KEYS = "keys.bin"
SHARD = "shard"
"""Column with the number of each record's shard."""
_DOWNLOADS = 16


def merge_parts(
    parts: Sequence[Path],
    shards: Sequence[str],
    source: str,
    out: Path,
    name: str,
    progress: Progress,
) -> None:
    """Write the columns of an index, then `index.json`.

    Args:
      parts: files of parts, in the order of the records.
      shards: name of the shard of each part.
      source: the source, in the syntax of `lidit data index`.
      out: folder of the index.
      name: name of the columns' folder in `out`.
      progress: receives the count of parts read and the total; each is read twice.

    Raises:
      LiditError: when a part is damaged, or there is no record.
    """
    with _local(parts) as files, _new_folder(out / name) as folder:
        about = _write_columns(files, shards, folder, progress)
        sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    index = {
        "format": FORMAT,
        "source": source,
        **about,
        "shards": list(shards),
        "columns": name,
        "bytes": sizes,
    }
    with atomic_file(out / INDEX) as stream:
        stream.write((json.dumps(index, indent=1) + "\n").encode())


def fingerprint(name: UInt64[np.ndarray, " n"], content: UInt64[np.ndarray, " n"]) -> str:
    """Return a digest of the records that does not depend on their order and location.

    Args:
      name: digest of each record's key.
      content: digest of each record's image and captions.
    """
    order = np.lexsort((content, name))
    digests = np.stack([name[order], content[order]], axis=1).astype("<u8", copy=False)
    return hashlib.sha256(digests.data).hexdigest()[:32]


def _write_columns(
    files: Sequence[Path], shards: Sequence[str], folder: Path, progress: Progress
) -> dict[str, Any]:
    """Write the columns, and return their description for `index.json`."""
    steps = 2 * len(files)
    captions: set[str] = set()
    numbers: set[str] = set()
    records, hashed = 0, True
    for step, file in enumerate(files):
        part = Part.load(file)
        captions |= {*part.caption_names}
        numbers |= {*part.number_names}
        records, hashed = records + len(part), hashed and NEAR in part.columns
        progress(step, steps)
    if not records:
        raise LiditError("not a single record was found: is this the right folder and format?")
    kinds = {SHARD: "<u4", **COLUMNS, **({NEAR: "<u8"} if hashed else {})}
    columns = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, (records,))
        for name, kind in kinds.items()
    }
    rows_of = {"caption_chars": captions, "caption_flags": captions, "numbers": numbers}
    names = {name: sorted(rows) for name, rows in rows_of.items()}
    tables = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, (len(rows), records))
        for (name, kind), rows in zip(TABLES.items(), names.values(), strict=True)
        if rows
    }
    for name, table in tables.items():
        table[:] = MISSING[name]
    first, first_byte = 0, 0
    with (folder / KEYS).open("wb") as keys, (folder / PROBLEMS).open("w") as problems:
        for shard, file in enumerate(files):
            part = Part.load(file)
            here = slice(first, first + len(part))
            part.columns["key_end"] = part.columns["key_end"] + first_byte
            columns[SHARD][here] = shard
            for name, values in part.columns.items():
                columns[name][here] = values
            for name, own, values in (
                ("caption_chars", part.caption_names, part.caption_chars),
                ("caption_flags", part.caption_names, part.caption_flags),
                ("numbers", part.number_names, part.numbers),
            ):
                for row, line in zip(own, values, strict=True):
                    tables[name][names[name].index(row), here] = line
            keys.write(part.keys.tobytes())
            for row, message in part.problems:
                line = _problem(part, row, first, first_byte, shards[shard], message)
                problems.write(json.dumps(line) + "\n")
            first, first_byte = first + len(part), first_byte + len(part.keys)
            progress(len(files) + shard, steps)
    counts = np.bincount(columns["problem"], minlength=len(Problem)).tolist()
    about = {
        "records": records,
        "fingerprint": fingerprint(columns["name"], columns["content"]),
        "problems": {kind.name.lower(): counts[kind] for kind in Problem if kind},
        "caption_names": names["caption_chars"],
        "number_names": names["numbers"],
        "perceptual_hashes": hashed,
    }
    for array in (*columns.values(), *tables.values()):
        array.flush()
    progress(steps, steps)
    return about


def _problem(
    part: Part, row: int, first: int, first_byte: int, shard: str, message: str
) -> dict[str, Any]:
    """Return one line of `problems.jsonl`."""
    end = int(part.columns["key_end"][row]) - first_byte
    begin = int(part.columns["key_end"][row - 1]) - first_byte if row else 0
    kind = Problem(int(part.columns["problem"][row])).name.lower()
    key = decode_key(part.keys[begin:end].tobytes())
    return {"record": first + row, "shard": shard, "key": key, "kind": kind, "message": message}


@contextmanager
def _local(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield the files on this machine."""
    if not in_bucket(files[0]):
        yield list(files)
        return
    with (
        tempfile.TemporaryDirectory(prefix="lidit-") as folder,
        ThreadPoolExecutor(_DOWNLOADS) as threads,
    ):
        copies = [Path(folder) / file.name for file in files]
        list(threads.map(lambda copy, file: copy.write_bytes(file.read_bytes()), copies, files))
        yield copies


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Create a folder that appears as `target` when complete; in a bucket its files appear then."""
    if in_bucket(target):
        with tempfile.TemporaryDirectory(prefix="lidit-") as name:
            yield Path(name)
            upload_folder(Path(name), target)
        return
    for half in target.parent.glob(f".{COLUMNS_NAME}-*"):  # of launches that were killed
        shutil.rmtree(half, ignore_errors=True)
    temporary = target.with_name(f".{target.name}")
    temporary.mkdir()
    yield temporary
    shutil.rmtree(target, ignore_errors=True)
    temporary.replace(target)
