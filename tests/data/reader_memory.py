"""Memory of a process that reads batches, over many of them: `python -m tests.data.reader_memory`.

It prints resident memory at ten moments of 20,000 batches of tiny pictures; it must not grow.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from lidit_jax.config.data_settings import (
    AugmentationSettings,
    CaptionSettings,
    FilterSettings,
    ReadingSettings,
)
from lidit_jax.data.batches import BatchReader, batches
from lidit_jax.data.bucket_members import BucketMembers
from lidit_jax.data.buckets import Buckets, bucket_counts
from lidit_jax.data.order import Order
from lidit_jax.data.skipped_records import SkippedRecords
from lidit_jax.data.streamed_source import StreamedSource
from tests.data.stand_ins import Columns, Painted

BATCH = 4
SIDE = 64


def resident() -> float:
    """Memory of this process on Linux, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def memory(count: int, folder: Path, workers: int = 0, moments: int = 10) -> list[float]:
    """Resident memory in MB, at the end of each of some equal parts of `count` batches."""
    index = Columns(2000)
    index.height[::2] = 32
    table = Buckets(SIDE, 2)
    of = table.assign_kept(index.width, index.height, index.problem == 0)
    members = BucketMembers(of, len(table))
    assert bucket_counts(of, len(table)).max() == 1000
    damaged = {7: b"text"}
    source = StreamedSource(index, Painted(index, damaged), CaptionSettings(), FilterSettings())
    reader = BatchReader(
        [source],
        Order([members], BATCH, 0),
        table.shapes,
        0,
        ReadingSettings(),
        AugmentationSettings(),
    )
    skipped = SkippedRecords(folder / "skipped.jsonl", len(index), 0.01)
    found, seen = batches(reader, 0, skipped, workers), []
    for number, _ in zip(range(1, count + 1), found, strict=False):
        if number % (count // moments) == 0:
            seen.append(resident())
    found.close()
    return seen


def main() -> None:
    """Prints the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        seen = memory(options.batches, Path(folder), options.workers)
    for part, megabytes in enumerate(seen, 1):
        print(f"{options.batches * part // 10:>7} batches: {megabytes:.1f} MB")
    print(f"{(time.monotonic() - start) / options.batches * 1e3:.2f} ms a batch of {BATCH}")


if __name__ == "__main__":
    main()
