"""Entry point of the process that runs one part of `lidit bench all`:

It stores intermediate results in FACTS (`Notes`); its output is free text.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lidit_jax.benchmarks.part_runner import Notes, seconds_left
from lidit_jax.benchmarks.runner import run_candidates
from lidit_jax.benchmarks.workload import Settings
from lidit_jax.io.paths import cache_dir

_MEASURED = 15.0
"""Seconds that a comparison reserves for its turns, after all candidates are built."""
_MANY_CORES = 4
"""With more cores than this, candidates are built at the same time."""
_MEMORY_FRACTION = "0.5"
"""Fraction of GPU memory that JAX may reserve: its allocator takes up to twice what is used."""


def training_step(given: dict[str, Any], note: Notes, left: Callable[[], float]) -> None:
    """Compare the train step with PyTorch's; retry with half the batch if out of memory."""
    batch = given["batch"]
    while True:
        settings = Settings(
            kind="step",
            config=given["config"],
            overrides=tuple(given["overrides"]),
            batch=batch,
            dtype=given["dtype"],
        )
        facts = _run_candidates(settings, given, note, left)
        note(_beside_the_plan(settings, facts["rows"], given))
        short = any(_is_memory(row.get("error", "")) for row in facts["rows"])
        if not short or batch == 1 or left() < given["again"]:
            return _ended(facts)
        batch //= 2
        note({"description": f"out of memory: measured again with {batch} images per step"})


def sampling(given: dict[str, Any], note: Notes, left: Callable[[], float]) -> None:
    """Compare sampling from a packaged model with PyTorch."""
    from lidit_jax.checkpoints.opener import open_model
    from lidit_jax.pytorch.export import export_torch

    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "torch"
        export_torch(open_model(given["checkpoint"]), exported)
        settings = Settings(
            kind="sample",
            config="demo",
            batch=given["batch"],
            dtype=given["dtype"],
            checkpoint=given["checkpoint"],
            exported=str(exported),
            results=folder,
        )
        _ended(_run_candidates(settings, given, note, left))


def encoding(given: dict[str, Any], note: Notes, left: Callable[[], float]) -> None:
    """Compare a language model that encodes prompts with PyTorch."""
    settings = Settings(
        kind="encode",
        config="demo",
        batch=given["batch"],
        dtype=given["dtype"],
        encoder=given["encoder"],
        tokens=given["tokens"],
    )
    _ended(_run_candidates(settings, given, note, left))


def attention(given: dict[str, Any], note: Notes, left: Callable[[], float]) -> None:
    """Compare the GPU's attention kernel with the reference: errors and times."""
    from lidit_jax.benchmarks.attention_check import errors, times

    errors(note, left, tiny=given["tiny"])
    times(note, left, tiny=given["tiny"])


def device(given: dict[str, Any], note: Notes, left: Callable[[], float]) -> None:
    """Describe the machine, with the findings of `lidit doctor`."""
    import jax

    from lidit_jax.hardware import cuda

    first = jax.devices()[0]
    memory = (first.memory_stats() or {}).get("bytes_limit", 0)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    note(
        {
            "platform": first.platform,
            "device": first.device_kind,
            "devices": jax.device_count(),
            "memory": memory,
            "driver": cuda.driver_version(),
            "cores": cores,
        }
    )


def gpu_tests(given: dict[str, Any], note: Notes, left: Callable[[], float]) -> None:
    """Run the tests marked "gpu", and exit with pytest's status.

    Raises:
      SystemExit: with pytest's exit status.
    """
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rfE", "-m", "gpu"]
    process = subprocess.Popen(
        [*command, *given["tests"]],
        env=os.environ | {"JAX_PLATFORMS": given["platforms"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=given["folder"],
    )
    lines = []
    for line in process.stdout or ():
        print(line, end="", flush=True)  # kept in the log if this part is killed
        lines += [line.strip()] if line.strip() else []
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    note({"result": lines[-1] if lines else "", "failed": failed[:20]})
    raise SystemExit(process.wait())


def train(given: dict[str, Any], note: Notes, left: Callable[[], float]) -> None:
    """Train a recipe for the available time, and export it."""
    from lidit_jax.benchmarks.timed_training import timed_training

    timed_training(given, note, left)


def _run_candidates(
    settings: Settings, given: dict[str, Any], note: Notes, left: Callable[[], float]
) -> dict[str, Any]:
    """Compare the installed candidates within the part's time."""
    on_gpu = given["platform"] == "gpu"
    # PyTorch's compilation cache outlives this call, as JAX's does.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "inductor"))
    if on_gpu and settings.kind == "step":
        os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = given.get("share", _MEMORY_FRACTION)
    facts = run_candidates(
        settings,
        rounds=given["rounds"],
        count=given["count"],
        warmup=1,
        torch=given["torch"] and importlib.util.find_spec("torch") is not None,
        only=given.get("only", ""),
        without="eager" if settings.kind == "step" else "",
        alone=given["platform"] == "tpu",
        together=on_gpu and (os.cpu_count() or 1) > _MANY_CORES,
        patience=max(left() - _MEASURED, 1.0),
        note=note,
    )
    note(facts)
    return facts


def _ended(facts: dict[str, Any]) -> None:
    """Raise an error if a comparison has no result at all."""
    if all("error" in row for row in facts["rows"]):
        raise SystemExit("every candidate failed: " + facts["rows"][0]["error"])


def _beside_the_plan(
    settings: Settings, rows: Sequence[dict[str, Any]], given: dict[str, Any]
) -> dict[str, Any]:
    """Return the predictions of `lidit plan` for this device, next to our measurements."""
    from lidit_jax.benchmarks.fitting import planned
    from lidit_jax.benchmarks.step import recipe_of

    ours = next((row for row in rows if "error" not in row and "PyTorch" not in row["name"]), None)
    config, _ = recipe_of(settings)
    # Captions are not encoded here.
    data = dataclasses.replace(config.data, text_features="cached")
    plan = planned(dataclasses.replace(config, data=data), given["device"])
    if ours is None or plan is None:
        return {}
    return {
        "plan": {
            "topology": plan.topology.name,
            "seconds": {"predicted": plan.seconds, "measured": ours["median_seconds"]},
            "bytes": {"predicted": plan.memory.total, "measured": ours["peak_bytes"]},
            "mfu": {"predicted": plan.mfu, "measured": ours.get("mfu")},
        }
    }


def _is_memory(error: str) -> bool:
    """Return whether a candidate ran out of memory."""
    return any(word in error for word in ("RESOURCE_EXHAUSTED", "out of memory", "OutOfMemory"))


PARTS: dict[str, Callable[[dict[str, Any], Notes, Callable[[], float]], None]] = {
    "device": device,
    "attention": attention,
    "step": training_step,
    "sample": sampling,
    "encode": encoding,
    "tests": gpu_tests,
    "train": train,
}


def main() -> None:
    """Run the part that the command line names."""
    name, settings, facts = sys.argv[1:]
    PARTS[name](json.loads(settings), Notes(Path(facts)), seconds_left())


if __name__ == "__main__":
    main()
