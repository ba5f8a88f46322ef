"""Store of cached data: ArrayRecord shards that any number of processes write together.

A store is a folder named by a digest of everything that determines its content. `header.json`
describes it from the start. Each shard appears at once, after a file of facts about it in `facts/`;
`summary.json`, the last file, adds up these facts and marks the store complete. A build that was
interrupted goes on with the shards that are missing; launches that build the same store at the same
time share them (`lidit_jax.data.shared_work`).
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax

from lidit_jax.data.cache.differences import differences
from lidit_jax.data.cache.entries import referred
from lidit_jax.data.cache.folders import content_key
from lidit_jax.data.cache.layout import Layout, ShardRange
from lidit_jax.data.shared_work import share_work
from lidit_jax.data.skipped_records import REPAIRED, Skipped
from lidit_jax.data.sources.record_files import RecordFiles, write_record_file
from lidit_jax.errors import LiditError
from lidit_jax.io.files import Files
from lidit_jax.io.output import atomic_file, writable_folder
from lidit_jax.io.paths import in_bucket
from lidit_jax.io.progress import Progress, slow_progress_bar
from lidit_jax.parallel.distributed import all_gather, print_on_main

FORMAT = 1
HEADER, SUMMARY, UNUSABLE = "header.json", "summary.json", "unusable.jsonl"
_FACTS, _CLAIMS = "facts", "claims"
_READERS = 16
"""Threads that read the facts of shards."""

Missing = Literal["build", "refuse"]
"""`config.data.cache_missing`."""


class Facts(NamedTuple):
    """Numbers about some entries."""

    total: Mapping[str, float]
    """Numbers that are added over shards."""
    largest: Mapping[str, float]
    """Numbers of which the largest over shards counts."""


class EncodedShard(NamedTuple):
    """Content of a shard."""

    entries: Sequence[bytes]
    facts: Facts
    listed: Sequence[Skipped]
    """Rows of records without values, and of those whose image was repaired."""


Encode = Callable[[ShardRange, Callable[[int], None]], EncodedShard]
"""Function that encodes a shard, and reports the numbers of entries done since the last report."""


@dataclass(frozen=True)
class StorePlan:
    """Store to open or to build."""

    label: str
    """What it holds, for messages: "latents"."""
    description: Mapping[str, Any]
    """Everything that determines the content, one value per name; the names are shown to users."""
    layout: Layout
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Values to keep in the header that do not determine the store's name."""

    def folder(self, parent: Path) -> Path:
        """Return the folder of the store below the cache's."""
        named = {"format": FORMAT, **self.description}
        return parent / content_key(self.layout.kind, named)


class Store:
    """Complete store. It can be pickled, and opens shards in each process on first use."""

    def __init__(self, folder: Path):
        """Read the header and the summary.

        Raises:
          LiditError: when one is damaged.
        """
        self.folder = folder
        header, summary = _read_json(folder / HEADER), _read_json(folder / SUMMARY)
        try:
            self.layout = Layout.from_dict(header["layout"])
            self.extra: Mapping[str, Any] = header["extra"]
            self.facts = Facts(**summary)
        except (KeyError, TypeError) as error:
            raise LiditError(f"{folder} is damaged ({error}): delete it") from error
        self._files = RecordFiles(Files(os.fspath(folder)))

    def read(self, group: int, entry: int) -> bytes:
        """Read an entry.

        Raises:
          LiditError: when its shard is missing or damaged.
        """
        name, number = self.layout.find(group, entry)
        try:
            content = self._files.read(name, number)
            other = referred(content)
            return content if other is None else self._files.read(name, other)
        except LiditError as error:
            raise LiditError(
                f"{self.folder / name} is missing or damaged: delete it and {SUMMARY} beside it, "
                f"and start again: only what is missing is made ({error})"
            ) from error


def open_store(
    parent: Path,
    plan: StorePlan,
    encode: Encode,
    missing: Missing = "build",
    share: tuple[int, int] | None = None,
) -> Store:
    """Open a store, after building what it lacks. All processes call it together.

    Args:
      parent: folder of the cache, which may be in a bucket.
      plan: the store.
      encode: encodes the shards that this process writes.
      missing: "build" builds what the store lacks, "refuse" raises an error.
      share: index of this process and number of processes; None for those of JAX.

    Raises:
      LiditError: under "refuse", when the store is missing or incomplete; states how it differs
        from what is there. When records cannot be encoded or shards cannot be written, and when
        the hosts do not share the folder.
    """
    folder = plan.folder(parent)
    complete = all(all_gather((folder / SUMMARY).exists()))
    if not complete and missing == "refuse":
        raise LiditError(
            f"config.data.cache_missing='refuse': {_state(folder, plan)}; `lidit cache` with the "
            "same options makes what is missing"
        )
    if not complete:
        if not (folder / HEADER).exists():
            told = differences(folder, plan.description)
            print_on_main([f"{plan.label}: {told}"] if told else [])
        with writable_folder(folder, "config.data.cache_dir"):
            _build(folder, plan, encode, share or (jax.process_index(), jax.process_count()))
    store = Store(folder)
    if not complete:
        print_on_main(_report(plan.label, store))
    return store


def _state(folder: Path, plan: StorePlan) -> str:
    """Describe what is there of a store."""
    if not (folder / HEADER).exists():
        told = differences(folder, plan.description)
        return f"{folder} with the {plan.label} is missing" + (f" ({told})" if told else "")
    shards = [
        shard.name for shard in Layout.from_dict(_read_json(folder / HEADER)["layout"]).shards()
    ]
    there = {path.name for path in folder.iterdir()} & {*shards}
    return f"{folder} holds {len(there)} of {len(shards)} shards of the {plan.label}"


def _build(folder: Path, plan: StorePlan, encode: Encode, share: tuple[int, int]) -> None:
    """Write the shards that are missing, together with the other processes."""
    if not in_bucket(folder):
        (folder / _FACTS).mkdir(exist_ok=True)
    _require_shared(folder)
    first = share[0] == 0 or jax.process_count() == 1
    if first and not (folder / HEADER).exists():
        _write_json(
            folder / HEADER,
            {
                "format": FORMAT,
                "holds": plan.label,
                "description": dict(plan.description),
                "layout": plan.layout._asdict(),
                "extra": dict(plan.extra),
            },
        )
    all_gather("header")
    shards = [*Layout.from_dict(_read_json(folder / HEADER)["layout"]).shards()]
    # Each process begins with every P-th shard, and then helps the others.
    process, processes = share
    order = [
        shard
        for turn in range(processes)
        for shard in shards[(process + turn) % processes :: processes]
    ]
    begun = time.monotonic()
    with slow_progress_bar(plan.label) as bar:
        progress = _EntryProgress(bar, shards)
        tasks = {shard.name: shard for shard in order}
        writer = _ShardWriter(encode, folder, progress.advance)
        try:
            share_work(folder, tasks, writer, folder / _CLAIMS, progress=progress)
        except _StopError as stop:
            raise stop.error from stop.error.__cause__
    if progress.added:
        seconds = (time.monotonic() - begun) / progress.added
        print_on_main([f"{plan.label}: {seconds:.3g} s per entry, by all processes together"])
    if first and not (folder / SUMMARY).exists():
        _summarize(folder, shards)
    all_gather("summary")


def _require_shared(folder: Path) -> None:
    """Check that all processes see a file that process 0 writes.

    Raises:
      LiditError: when one does not.
    """
    if jax.process_count() == 1:
        return
    probe = folder / f"probe-{all_gather(uuid.uuid4().hex)[0]}"
    if jax.process_index() == 0:
        probe.write_bytes(b"x")
    all_gather("probe")
    seen = all_gather(probe.exists())
    if jax.process_index() == 0:
        probe.unlink()
    if not all(seen):
        raise LiditError(
            f"process {seen.index(False)} does not see what process 0 writes to {folder}: "
            "config.data.cache_dir must be a folder or bucket that all hosts share"
        )


class _StopError(Exception):
    """Error that ends the work at once; `share_work` collects those of single files."""

    def __init__(self, error: LiditError):
        super().__init__(error)
        self.error = error


class _ShardWriter:
    """Writes one shard."""

    def __init__(self, encode: Encode, folder: Path, advance: Callable[[int], None]):
        self._encode, self._folder, self._advance = encode, folder, advance

    def __call__(self, shard: ShardRange, file: Path) -> None:
        try:
            entries, facts, listed = self._encode(shard, self._advance)
            about = {
                "total": {
                    **facts.total,
                    "entries": len(entries),
                    "bytes": sum(map(len, entries)),
                    "unusable": sum(row.kind != REPAIRED for row in listed),
                },
                "largest": dict(facts.largest),
                "unusable": [row._asdict() for row in listed],
            }
            _write_json(_facts_file(self._folder, shard), about)
            write_record_file(file, entries)
        except LiditError as error:
            raise _StopError(error) from error
        except OSError as error:
            raise _StopError(
                LiditError(
                    f"cannot write {file} ({error.strerror or error}): set config.data.cache_dir "
                    "to a place with free space; what is cached stays cached"
                )
            ) from error


def _facts_file(folder: Path, shard: ShardRange) -> Path:
    return folder / _FACTS / f"{shard.name}.json"


class _EntryProgress(Progress):
    """Progress in entries: those of present shards, and those done of the shard at work."""

    def __init__(self, bar: Progress, shards: Sequence[ShardRange]):
        self._bar, self._shards = bar, len(shards)
        self._entries = sum(shard.stop - shard.start for shard in shards)
        self._before: int | None = None
        self._present = self._here = 0
        self._told = 0

    @property
    def added(self) -> int:
        """Entries that were written since the start, by any process."""
        return self._present - (self._before or 0)

    def __call__(self, done: int, total: int) -> None:
        self._present, self._here = self._entries * done // total, 0
        if self._before is None:
            self._before = self._present
        self._tell()

    def note(self, text: str) -> None:
        self._bar.note(text)

    def advance(self, entries: int) -> None:
        """Report that entries of a shard are encoded."""
        self._here += entries
        self._tell()

    def _tell(self) -> None:
        self._told = max(self._told, min(self._present + self._here, self._entries))
        self._bar(self._told, self._entries)


def _summarize(folder: Path, shards: Sequence[ShardRange]) -> None:
    """Add up the facts of all shards, and list their unusable and repaired records."""
    total, largest, unusable = Counter[str](), dict[str, float](), list[str]()
    with ThreadPoolExecutor(_READERS) as pool:
        for row in pool.map(_read_json, (_facts_file(folder, shard) for shard in shards)):
            total.update(row["total"])
            for name, value in row["largest"].items():
                largest[name] = max(value, largest.get(name, value))
            unusable += [f"{json.dumps(record)}\n" for record in row["unusable"]]
    if unusable:
        with atomic_file(folder / UNUSABLE) as stream:
            stream.write("".join(unusable).encode())
    _write_json(folder / SUMMARY, Facts(dict(total), largest)._asdict())


def _report(label: str, store: Store) -> list[str]:
    total = store.facts.total
    count, size = int(total["entries"]), total["bytes"]
    lines = [f"{label}: {count:,} entries, {size / 1e6:,.1f} MB, {size / count:,.0f} bytes each"]
    if total["unusable"]:
        lines.append(
            f"{label}: {int(total['unusable'])} records cannot be used, see "
            f"{store.folder / UNUSABLE}"
        )
    if repaired := int(total.get(REPAIRED, 0)):
        lines.append(
            f"{label}: {repaired} images are damaged and were repaired, see "
            f"{store.folder / UNUSABLE}"
        )
    return lines


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise LiditError(f"{file} is missing or damaged ({error}): delete its folder") from error


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    with atomic_file(file) as stream:
        stream.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
