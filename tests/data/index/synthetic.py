"""A synthetic index of many records: how long it takes to open, and how much memory.

`python -m tests.data.index.synthetic --records=10M` makes one in a folder for a while, merges it,
and opens it in a process of its own, which does what the start of training does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from lidit_jax.data.caption_flags import CaptionFlag
from lidit_jax.data.index.columns import COLUMNS, Part
from lidit_jax.data.index.merge import COLUMNS_NAME, merge_parts
from lidit_jax.io.numbers import parse_integer
from lidit_jax.io.progress import Progress

KEY = 18
"""Bytes of every key."""
SHARD = 20_000
"""Records of every shard."""

OPEN = """
import json, sys, time
from pathlib import Path

import numpy as np

def memory(name):
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) * 1024

def clock(begin):
    return time.perf_counter() - begin

begin = time.perf_counter()
from lidit_jax.data.index.open import open_index
from lidit_jax.data.index.statistics import statistics, usable_sample
imported, before = clock(begin), memory("VmRSS")
begin = time.perf_counter()
index = open_index(Path(sys.argv[1]))
index.place(len(index) - 1)
opened, after = clock(begin), memory("VmRSS")
begin = time.perf_counter()
found = statistics(index)
for record in usable_sample(index, 1000, seed=0):
    index.place(record)
used = clock(begin)
most = memory("VmHWM")
print(json.dumps({
    "records": len(index), "import_s": imported, "import_bytes": before, "open_s": opened,
    "open_bytes": after, "statistics_s": used, "peak_bytes": most,
}))
"""


def part(first: int, count: int, random: np.random.Generator) -> Part:
    """Records as a shard of photographs would have them."""
    digits = (first + np.arange(count))[:, None] // 10 ** np.arange(KEY - 1, -1, -1) % 10
    sides = random.integers(256, 4096, (2, count))
    columns = {
        "offset": np.arange(count) * 100_000,
        "length": random.integers(10_000, 200_000, count),
        "width": sides[0],
        "height": sides[1],
        "problem": random.random(count) < 0.001,
        "content": random.integers(0, 2**63, count),
        "name": random.integers(0, 2**63, count),
        "key_end": KEY * np.arange(1, count + 1),
    }
    problems = [[int(row), "the picture is damaged"] for row in np.flatnonzero(columns["problem"])]
    return Part(
        {name: values.astype(COLUMNS[name]) for name, values in columns.items()},
        ["caption"],
        random.integers(5, 400, (1, count)).astype("<u4"),
        np.full((1, count), CaptionFlag.LATIN, np.uint8),
        ["score"],
        random.random((1, count)),
        (digits + ord("0")).astype(np.uint8).ravel(),
        problems,
    )


def make(folder: Path, records: int, shard: int = SHARD) -> float:
    """Writes the parts of an index and merges them; seconds of the merging."""
    random = np.random.default_rng(0)
    files = []
    (folder / "parts").mkdir()
    for first in range(0, records, shard):
        files.append(folder / "parts" / f"{first // shard:06d}")
        with files[-1].open("wb") as file:
            part(first, min(shard, records - first), random).save(file)
    begin = time.perf_counter()
    names = [f"{file.name}.tar" for file in files]
    merge_parts(
        files, names, "webdataset:synthetic", folder, f"{COLUMNS_NAME}-synthetic", Progress()
    )
    return time.perf_counter() - begin


def measure(folder: Path) -> dict[str, float]:
    """Opens an index in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-c", OPEN, str(folder)], check=True, capture_output=True, text=True
    )
    return json.loads(result.stdout)


def main() -> None:
    """Prints what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=parse_integer, default=10_000_000)
    with tempfile.TemporaryDirectory(prefix="lidit-") as name:
        folder = Path(name)
        merging = make(folder, parser.parse_args().records)
        size = sum(file.stat().st_size for file in folder.glob("columns-*/*"))
        print(json.dumps(measure(folder) | {"merge_s": merging, "index_bytes": size}, indent=2))


if __name__ == "__main__":
    main()
