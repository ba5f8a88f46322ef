"""Serve a candidate in its own process: `python -m lidit_jax.benchmarks.serve NAME SETTINGS`.

It prints one JSON object per line: first a description of the workload, then the seconds of each
requested iteration (`N` on its standard input), last its peak memory (at the end of input).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from lidit_jax.benchmarks.workload import Builder, Settings, peak_bytes


def candidates(kind: str) -> dict[str, Builder]:
    """Return the candidates of a benchmark, ours first; PyTorch's have "PyTorch" in their names."""
    return importlib.import_module(f"lidit_jax.benchmarks.{kind}").CANDIDATES


def main() -> None:
    """Serve one candidate until its input ends."""
    name, settings = sys.argv[1], Settings.from_json(sys.argv[2])
    # Libraries may print; only the answers may reach the parent.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if settings.threads and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings.threads])
    if "PyTorch" in name:
        import torch

        torch.set_num_threads(settings.threads or torch.get_num_threads())
    else:
        from lidit_jax.hardware.xla_flags import apply_flags

        apply_flags()  # as `lidit train` does
    start = time.perf_counter()
    workload = candidates(settings.kind)[name](settings)
    result = workload.run()
    first_seconds = time.perf_counter() - start
    if settings.results:
        np.save(Path(settings.results) / name, result)
    built = {
        "first_seconds": first_seconds,
        "items": workload.items,
        "flops": workload.flops,
        "device": _device(name),
        "peak_bytes": peak_bytes(),
        **workload.about,
    }
    print(json.dumps(built), file=answers)
    for line in sys.stdin:
        seconds = []
        if workload.settle:
            workload.settle()
        for _ in range(int(line)):
            start = time.perf_counter()
            workload.run()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), file=answers)
    print(json.dumps({"peak_bytes": peak_bytes()}), file=answers)


def _device(name: str) -> str:
    if "PyTorch" in name:
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    import jax

    return jax.devices()[0].device_kind


if __name__ == "__main__":
    main()
