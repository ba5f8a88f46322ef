"""Settings of a benchmark, and workloads that can be timed."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lidit_jax.config.load import load_recipe
from lidit_jax.config.schema import Config


@dataclass(frozen=True)
class Settings:
    """Settings of a benchmark, the same for all candidates."""

    kind: str
    """Benchmark, one of `lidit_jax.benchmarks.KINDS`."""
    config: str
    """Recipe, which determines the shapes."""
    overrides: tuple[str, ...] = ()
    batch: int = 8
    dtype: str = "float32"
    """Compute type: "float32" or "bfloat16"."""
    threads: int = 0
    """Number of CPU threads; 0 for all."""
    checkpoint: str = "demo"
    """Model that "sample" draws with."""
    exported: str = ""
    """Folder with the checkpoint's export to PyTorch, or empty."""
    results: str = ""
    """Folder for the candidates' images, to compare them; empty to store none."""
    encoder: str = "smollm2"
    """Text encoder that "encode" runs."""
    tokens: int = 100
    """Prompt tokens that "encode" processes."""
    photos: str = ""
    """Folder of the photos that "data" reads, in every format."""
    image_size: int = 512
    """Side of the images that "data" makes, in pixels."""
    workers: int = 2
    """Processes that read in "data"; threads for Pillow alone."""

    def recipe(self) -> Config:
        """Return the recipe, computing in `dtype`."""
        config = load_recipe(self.config, self.overrides)
        model = dataclasses.replace(config.model, dtype=self.dtype)
        return dataclasses.replace(config, model=model)

    def to_json(self) -> str:
        """Return the settings as JSON, for another process."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read settings from JSON: the inverse of `to_json`."""
        values = json.loads(text)
        return cls(**values | {"overrides": tuple(values["overrides"])})


@dataclass(frozen=True)
class Workload:
    """Candidate that is ready to be timed."""

    run: Callable[[], Any]
    """Run one iteration, finished when it returns. A returned array may be compared."""
    items: int
    """Images, prompts or sequences per iteration."""
    flops: float | None = None
    """FLOPs per iteration as `models.flops` counts them, if known."""
    about: dict[str, Any] = field(default_factory=dict)
    """Other facts to report: parameters, kernels, tiles."""
    settle: Callable[[], Any] | None = None
    """Run before each turn, untimed: uses up what was read ahead while other candidates ran."""


Builder = Callable[[Settings], Workload]


def torch_device() -> str:
    """Return "cuda" if PyTorch has a CUDA device, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def synchronize_torch() -> None:
    """Wait until the GPU has finished all work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_bytes() -> int:
    """Return this process's peak memory: on its GPU if it uses one, else resident (Linux)."""
    if torch := sys.modules.get("torch"):
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated()
    elif (jax := sys.modules.get("jax")) and (stats := jax.devices()[0].memory_stats()):
        return stats.get("peak_bytes_in_use", 0)
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
    return 1024 * int(found[1]) if found else 0
