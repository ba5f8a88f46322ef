"""Run the candidates of a benchmark in turns, and print the results."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from lidit_jax.benchmarks.interleaved import Candidate, build_concurrently, run_interleaved
from lidit_jax.benchmarks.serve import candidates
from lidit_jax.benchmarks.workload import Settings
from lidit_jax.errors import LiditError

_LARGEST_SPREAD = 1.3
"""Spread expected of an idle machine; above it, medians of few rounds are unreliable."""


def default_platform() -> str:
    """Return "tpu", "gpu" or "cpu", where candidates will run, as found by a child process.

    Raises:
      LiditError: when JAX finds no device, or another program holds it.
    """
    command = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LiditError(f"JAX finds no device (see: lidit doctor): {last[:200]}")
    return done.stdout.split()[-1]


def run_candidates(
    settings: Settings,
    *,
    rounds: int,
    count: int,
    warmup: int,
    torch: bool,
    only: str = "",
    alone: bool = False,
    without: str = "",
    together: bool = False,
    patience: float | None = None,
    note: Callable[[dict[str, Any]], None] = lambda facts: None,
) -> dict[str, Any]:
    """Build the candidates, run them in turns, and return rows and facts about the run.

    Args:
      settings: settings of all candidates.
      rounds: number of timed turns.
      count: iterations per turn.
      warmup: iterations before the first turn.
      torch: whether to include PyTorch.
      only: substring that names must contain.
      alone: whether a candidate starts only after the previous one has ended, as on a TPU, which
        only one process can use at a time.
      without: substring that names must not contain; empty for no filter.
      together: whether candidates are built at the same time, if there are enough cores; those
        built first are timed alone until the others are ready.
      patience: seconds within which all candidates must be built, or are skipped; those that are
        built are timed at once, as the others may be late. None for no limit.
      note: called with all results so far after every turn.

    Raises:
      LiditError: when no candidate is left.
    """
    names = [
        name
        for name in candidates(settings.kind)
        if (torch or "PyTorch" not in name) and only in name and not (without and without in name)
    ]
    if not names:
        raise LiditError(
            f"--only={only}: no candidate of lidit bench {settings.kind} has this name"
        )
    # Two frameworks share the GPU: neither may reserve all of its memory.
    env = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    threads = settings.threads or len(os.sched_getaffinity(0))
    ended: list[Candidate] = []
    begun = time.monotonic()

    def facts(known: list[Candidate]) -> dict[str, Any]:
        first = next((one for one in known if not one.error), known[0])
        rows = [_with_rates(one.summary(first)) for one in known]
        if settings.results and not first.error:
            add_psnr(rows, Path(settings.results), first.name)
        return {
            "settings": settings.to_json(),
            "rounds": rounds,
            "count": count,
            "cpu": platform.processor() or platform.machine(),
            "versions": versions(),
            "rows": rows,
        }

    for group in [[name] for name in names] if alone else [names]:
        running = []
        for name in group:
            command = [sys.executable, "-m", "lidit_jax.benchmarks.serve", name, settings.to_json()]
            left = None if patience is None else max(begun + patience - time.monotonic(), 0.0)
            running.append(Candidate(name, command, threads, env, left))
            if not together:
                running[-1].build()
                _tell(running[-1])
            if not together and patience is not None and name != group[-1]:
                running[-1].work_alone(count, warmup)
                if running[-1].rounds:
                    note(facts([one for one in running if one.rounds]))
        if together:
            build_concurrently(running, count, warmup, lambda some: note(facts(some)))
            for candidate in running:
                _tell(candidate)
        ended.extend(running)
        run_interleaved(running, rounds, count, warmup, lambda: note(facts(ended)))
    return facts(ended)


def _tell(candidate: Candidate) -> None:
    print(f"{candidate.name}: {candidate.error or 'ready'}", file=sys.stderr)
    for line in candidate.error_lines:
        print(f"  {line}", file=sys.stderr)


def _with_rates(row: dict[str, Any]) -> dict[str, Any]:
    """Add items and FLOPs per second, and the MFU."""
    if "error" in row:
        return row
    from lidit_jax.hardware.devices import peak_of_kind

    seconds = row["median_seconds"]
    row["items_per_second"] = row["items"] / seconds
    if row["flops"]:
        row["flops_per_second"] = row["flops"] / seconds
        if peak := peak_of_kind(row["device"]):
            row["mfu"] = row["flops_per_second"] / peak
    return row


def add_psnr(rows: list[dict[str, Any]], results: Path, first: str) -> None:
    """Add the PSNR of each candidate's images relative to the first's; None if they are equal.

    Args:
      rows: the candidates' rows; those with an "error" are skipped.
      results: folder with NAME.npy of each candidate.
      first: name of the candidate whose images are the reference.
    """
    from lidit_jax.pytorch.parity import psnr

    reference = np.load(results / f"{first}.npy")
    for row in rows:
        if "error" not in row and row["name"] != first:
            likeness = psnr(np.load(results / f"{row['name']}.npy"), reference)
            row["psnr_db"] = likeness if np.isfinite(likeness) else None


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print a Markdown table, and warnings about unstable timings and differing devices."""
    columns = ["candidate", "s (median)", "min to max", "items/s", "TFLOP/s", "MFU"]
    columns += ["relative time", "PSNR", "first, s", "peak MiB"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        if "error" in row:
            print(f"| {row['name']} | failed: {row['error'][:80]} {'| ' * (len(columns) - 2)}|")
            continue
        likeness = row.get("psnr_db", "")
        likeness = "equal" if likeness is None else likeness and f"{likeness:.1f} dB"
        rate = f"{row['flops_per_second'] / 1e12:.2f}" if "flops_per_second" in row else ""
        mfu = f"{row['mfu']:.1%}" if "mfu" in row else ""
        print(
            f"| {row['name']} | {row['median_seconds']:.4g} "
            f"| {row['fastest_round_seconds']:.4g} to {row['slowest_round_seconds']:.4g}"
            f"{f' ({_spread(row):.1f} times)' if _spread(row) > _LARGEST_SPREAD else ''} "
            f"| {row['items_per_second']:.1f} | {rate} | {mfu} | {row['relative_time'] or 1:.2f} "
            f"| {likeness} | {row['first_seconds']:.1f} | {row['peak_bytes'] / 2**20:.0f} |"
        )
    for row in rows:
        if "error" not in row and _spread(row) > _LARGEST_SPREAD:
            fastest, slowest = row["fastest_round_seconds"], row["slowest_round_seconds"]
            print(
                f"warning: the rounds of {row['name']} took from {fastest:.4g} to {slowest:.4g} s, "
                f"{_spread(row):.1f} times as long: the machine was busy; trust only large "
                "differences, or increase --rounds"
            )
    first, *others = [row for row in rows if "error" not in row] or [{}]
    for row in others:
        if row["device"] != first["device"]:
            print(
                f"warning: {row['name']} ran on {row['device']}, {first['name']} on "
                f"{first['device']}: their times cannot be compared"
            )


def _spread(row: dict[str, Any]) -> float:
    """Return the ratio of the slowest round to the fastest."""
    return row["slowest_round_seconds"] / row["fastest_round_seconds"]


def versions() -> dict[str, str]:
    """Return the versions of the packages that affect timings."""
    found = {}
    names = ("lidit-jax", "jax", "jaxlib", "jax-cuda13-plugin", "nvidia-cudnn-cu13", "flax")
    for name in (*names, "torch", "triton", "transformers", "diffusers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
