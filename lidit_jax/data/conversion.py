"""Conversion of any source to ArrayRecord shards, in index order, by several processes.

Unusable records are excluded. After an interruption only the missing shards are written.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from lidit_jax.data.index.build import Work, build_index
from lidit_jax.data.index.open import Index, open_index
from lidit_jax.data.sources.array_record import ArrayRecords, write_records
from lidit_jax.data.sources.protocol import RecordSource
from lidit_jax.data.sources.registry import open_records
from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file
from lidit_jax.io.paths import to_path
from lidit_jax.io.progress import Progress

RECORDS = 10_000
"""Default number of records per shard."""
_INDEX, _STATE = "index", "conversion.json"


def convert(
    index_folder: Path,
    out: Path,
    work: Work,
    *,
    records_per_shard: int = RECORDS,
    progress: Progress | None = None,
) -> Index:
    """Write `photos-00000-of-00012.array_record` and so on, and their index in `index/`.

    Args:
      index_folder: folder of the source's index.
      out: folder for the shards, which may be in a bucket; it exists and can be written.
      work: runs the writing of shards, then their scans.
      records_per_shard: maximum number of records per shard.
      progress: receives the counts of shards written, then scanned, and the total.

    Returns:
      The index of the shards.

    Raises:
      LiditError: when records can no longer be read (all shards without one are written first),
        when there is no record to convert, or when the folder holds another conversion.
    """
    tell = progress or Progress()
    index = open_index(index_folder)
    usable = int(np.count_nonzero(index.problem[:] == 0))
    if not usable:
        raise LiditError(f"{index_folder} has no record that can be used: nothing to convert")
    count = math.ceil(usable / records_per_shard)
    _take_folder(out, {"fingerprint": index.fingerprint, "records_per_shard": records_per_shard})
    tasks = {f"{out.name}-{n:05d}-of-{count:05d}.array_record": n for n in range(count)}
    write = _WriteShard(os.fspath(index_folder), records_per_shard)
    work(out, tasks, write, out / _INDEX / "claims", progress=tell)
    return build_index(
        ArrayRecords(os.fspath(out)),
        out / _INDEX,
        near_duplicates=index.perceptual_hash is not None,
        progress=tell,
        work=work,
    )


class _WriteShard:
    """Writes one shard; opens the index in each process, on first use."""

    def __init__(self, index_folder: str, records: int):
        self._folder, self._records = index_folder, records

    def __reduce__(self) -> tuple[type[_WriteShard], tuple[str, int]]:
        return _WriteShard, (self._folder, self._records)

    @cached_property
    def _index(self) -> Index:
        return open_index(to_path(self._folder))

    @cached_property
    def _source(self) -> RecordSource:
        return open_records(self._index.source)

    @cached_property
    def _usable(self) -> Int64[np.ndarray, " n"]:
        return np.flatnonzero(self._index.problem[:] == 0)

    def __call__(self, shard: int, file: Path) -> None:
        first = shard * self._records
        chosen = self._usable[first : first + self._records].tolist()
        write_records(file, (self._record(number) for number in chosen))

    def _record(self, number: int) -> tuple[str, bytes, Mapping[str, str], dict[str, float]]:
        """Return a record to write. Raises `LiditError` when it cannot be read."""
        place = self._index.place(number)
        record = self._source.read(place)
        values = {name: float(column[number]) for name, column in self._index.numbers.items()}
        numbers = {name: value for name, value in values.items() if not math.isnan(value)}
        # File names may hold bytes that are not text.
        key = place.key.encode("utf-8", "backslashreplace").decode()
        return key, record.image, record.captions, numbers


def _take_folder(out: Path, state: dict[str, object]) -> None:
    """Store the inputs of a folder's conversion; refuse a folder of another one."""
    file = out / _INDEX / _STATE
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as stream:
            stream.write((json.dumps(state) + "\n").encode())
    if json.loads(file.read_bytes()) != state:
        raise LiditError(
            f"{out} holds another conversion, of other records or with shards of another size: "
            "name another folder, or delete it"
        )
