"""Exports a checkpoint and prints, as JSON, by how many bytes the process grew meanwhile.

python -m tests.pytorch.export_memory CHECKPOINT OUT
"""

import json
import re
import sys
import threading
import time
from pathlib import Path

from lidit_jax.checkpoints.opener import open_model
from lidit_jax.checkpoints.shapes import check_shapes
from lidit_jax.pytorch.export import export_torch


def anonymous_memory() -> int:
    """Resident memory of this process in bytes, mapped files apart (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])


def main() -> None:
    """Measures one export."""
    checkpoint, out = sys.argv[1:]
    source = open_model(checkpoint)
    # What the libraries load once belongs to the start.
    check_shapes(source)
    source.read(next(iter(source.shapes)))
    start = peak = anonymous_memory()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, anonymous_memory())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    export_torch(source, Path(out), shard_bytes=100_000_000)
    done.set()
    watcher.join()
    print(json.dumps({"growth": peak - start}))


if __name__ == "__main__":
    main()
