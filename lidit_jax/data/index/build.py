"""Building of an index: each shard is scanned once and the results are merged.

After an interruption it scans only the missing shards; after changes, the new or changed ones.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lidit_jax.data.digests import short_digest
from lidit_jax.data.index.columns import FORMAT, encode_key
from lidit_jax.data.index.merge import COLUMNS_NAME, merge_parts
from lidit_jax.data.index.open import Index, open_index
from lidit_jax.data.index.scan import scan_shard
from lidit_jax.data.shared_work import Write, share_work
from lidit_jax.data.sources.protocol import RecordSource, Shard
from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file
from lidit_jax.io.paths import in_bucket
from lidit_jax.io.progress import Progress

_PARTS, _CLAIMS, _DONE, _SOURCE = "parts", "claims", "done", "source.json"


@runtime_checkable
class Work(Protocol):
    """Writes files: in processes, as `share_work` does, or as a Beam pipeline."""

    def __call__(
        self,
        folder: Path,
        tasks: Mapping[str, Any],
        write: Write,
        claims: Path,
        *,
        progress: Progress,
    ) -> None:
        """See `share_work`."""
        ...


@dataclass(frozen=True)
class _WritePart:
    """Scans a shard and writes its part of the index."""

    source: RecordSource
    near_duplicates: bool

    def __call__(self, shard: Shard, file: Path) -> None:
        try:
            part = scan_shard(self.source, shard, self.near_duplicates)
        except OSError as error:
            raise LiditError(f"{shard.name} cannot be read to its end ({error})") from error
        with atomic_file(file) as stream:
            part.save(stream)


@dataclass(frozen=True)
class _Merge:
    """Merges all parts, and removes files of earlier states of the source."""

    source: RecordSource
    shards: Sequence[Shard]
    parts: Sequence[str]
    out: Path
    progress: Progress

    def __call__(self, columns: str, file: Path) -> None:
        _remove(self.out / _DONE, ())
        parts = [self.out / _PARTS / name for name in self.parts]
        shards = [shard.name for shard in self.shards]
        merge_parts(parts, shards, repr(self.source), self.out, columns, self.progress)
        _remove(self.out / _PARTS, self.parts)
        _remove(self.out, (columns,), COLUMNS_NAME)
        with atomic_file(file) as stream:
            stream.write(b"{}\n")


def build_index(
    source: RecordSource,
    out: Path,
    *,
    processes: int = 1,
    near_duplicates: bool = False,
    progress: Progress | None = None,
    work: Work | None = None,
) -> Index:
    """Build or update the index of a source, and open it.

    Several launches on one or more hosts may share the work; all return when it is complete. The
    result has the same bytes for any number of launches.

    Args:
      source: what to scan.
      out: folder for the index, which may be in a bucket; it exists and can be written.
      processes: number of processes on this host.
      near_duplicates: whether to decode all images for a perceptual hash of each.
      progress: receives the counts of shards scanned, then of parts merged, and the totals.
      work: runs the scans; None for processes.

    Raises:
      LiditError: when shards cannot be read to their end (all others are scanned first), when the
        folder holds the index of another source, or when there is no record at all.
    """
    tell = progress or Progress()
    shards = source.shards()
    # Only now: a source that cannot be listed, such as one of another format, claims no folder.
    _take_folder(out, repr(source))
    parts = [_part_name(shard, near_duplicates) for shard in shards]
    (out / _PARTS).mkdir(parents=True, exist_ok=True)
    (work or partial(share_work, processes=processes))(
        out / _PARTS,
        dict(zip(parts, shards, strict=True)),
        _WritePart(source, near_duplicates),
        out / _CLAIMS,
        progress=tell,
    )
    state = short_digest(repr(source).encode(), *(name.encode() for name in parts)).hex()
    (out / _DONE).mkdir(exist_ok=True)
    merge = _Merge(source, shards, parts, out, tell)
    share_work(out / _DONE, {state: f"{COLUMNS_NAME}-{state}"}, merge, out / _CLAIMS)
    return open_index(out)


def _take_folder(out: Path, source: str) -> None:
    """Store which source a folder is the index of; refuse a folder of another one."""
    file = out / _SOURCE
    if not file.exists():
        with atomic_file(file) as stream:
            stream.write((json.dumps({"source": source}) + "\n").encode())
    other = json.loads(file.read_bytes()).get("source")
    if other != source:
        raise LiditError(f"{out} is the index of {other}, not of {source}: name another folder")


def _part_name(shard: Shard, near_duplicates: bool) -> str:
    """Return a name that changes with everything that affects the result of a scan."""
    kind = f"{FORMAT} {near_duplicates}"
    return short_digest(encode_key(shard.name), shard.version.encode(), kind.encode()).hex()


def _remove(folder: Path, kept: Collection[str], begin: str = "") -> None:
    """Delete a folder's entries, all or those with a prefix, except `kept`."""
    try:
        found = [*folder.iterdir()]
    except FileNotFoundError:  # a bucket has no empty folders
        return
    for path in found:
        if path.name in kept or not path.name.startswith(begin):
            continue
        if not path.is_dir():
            path.unlink()
        elif in_bucket(path):
            path.rmtree()  # pyright: ignore[reportAttributeAccessIssue] (of epath)
        else:
            shutil.rmtree(path)
