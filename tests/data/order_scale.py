"""Time and memory of the order of many records: `python -m tests.data.order_scale 1e7 1e9`.

For each number of records it assigns buckets, counts them, and draws batches near and far. Columns
and buckets lie in files that are mapped into memory, as those of an index do; memory is that of the
process without pages of those files, which the system takes back when it needs them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from lidit_jax.data.bucket_members import BucketMembers
from lidit_jax.data.buckets import LEFT_OUT, Buckets
from lidit_jax.data.order import Order

BATCH = 4096
PIECE = 2**22


def own_memory() -> float:
    """Memory of this process on Linux, in MB, without pages of files."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) / 1e3


def sizes(count: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Widths and heights of photographs, in files."""
    generator = np.random.default_rng(0)
    columns = []
    for name in ("width", "height"):
        column = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint16, (count,))
        for start in range(0, count, PIECE):
            part = column[start : start + PIECE]
            part[:] = generator.integers(256, 2048, len(part))
        column.flush()
        columns.append(np.load(folder / f"{name}.npy", mmap_mode="r"))
    return columns[0], columns[1]


def measure(count: int, folder: Path) -> None:
    """Prints one line a stage."""

    def stage(name: str, start: float, times: int = 1) -> None:
        seconds = (time.process_time() - start) / times
        print(f"{count:.0e} {name}: {seconds:.4f} s CPU, {own_memory():.0f} MB", flush=True)

    width, height = sizes(count, folder)
    table = Buckets(512, 16)
    start = time.process_time()
    file = folder / "buckets.npy"
    buckets = np.lib.format.open_memmap(file, "w+", np.uint8, (count,))
    for first in range(0, count, PIECE):
        part = slice(first, first + PIECE)
        keep = np.ones(len(width[part]), bool)
        buckets[part] = table.assign_kept(width[part], height[part], keep)
    assert LEFT_OUT not in buckets[:PIECE]
    buckets.flush()
    stage("buckets assigned and written", start)
    start = time.process_time()
    members = BucketMembers(np.load(file, mmap_mode="r"), len(table))
    stage("members counted", start)
    start = time.process_time()
    order = Order([members], BATCH, 0)
    stage("order made", start)
    for first in (0, 10**9):
        start = time.process_time()
        for number in range(first, first + 20):
            order.batch(number)
        stage(f"batch of {BATCH} from number {first}", start, 20)
    start = time.process_time()
    for number in range(20):
        order.batch(number, 3, 64)
    stage("the part of one of 64 hosts", start, 20)


def main() -> None:
    """Measures each number of records of the command line."""
    for argument in sys.argv[1:] or ["1e7"]:
        with tempfile.TemporaryDirectory() as folder:
            measure(int(float(argument)), Path(folder))


if __name__ == "__main__":
    main()
