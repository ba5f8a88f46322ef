"""What a benchmark is made of: settings, and a piece of work that can be timed."""

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
    """Of one benchmark; every candidate gets the same."""

    kind: str
    """One of `lidit_jax.benchmarks.KINDS`."""
    config: str
    """The recipe, for shapes."""
    overrides: tuple[str, ...] = ()
    batch: int = 8
    dtype: str = "float32"
    """Compute type: "float32" or "bfloat16"."""
    threads: int = 0
    """Of the CPU; 0 for all."""
    checkpoint: str = "demo"
    """What "sample" draws with."""
    exported: str = ""
    """Its export to PyTorch: a folder, or empty."""
    results: str = ""
    """Folder for what candidates draw, to be compared; empty to keep nothing."""
    encoder: str = "smollm2"
    """What "encode" reads with."""
    tokens: int = 100
    """Prompt tokens that "encode" reads."""

    def recipe(self) -> Config:
        """The recipe, computing in `dtype`."""
        config = load_recipe(self.config, self.overrides)
        model = dataclasses.replace(config.model, dtype=self.dtype)
        return dataclasses.replace(config, model=model)

    def to_json(self) -> str:
        """For another process."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The inverse of `to_json`."""
        values = json.loads(text)
        return cls(**values | {"overrides": tuple(values["overrides"])})


@dataclass(frozen=True)
class Workload:
    """A candidate that is ready."""

    run: Callable[[], Any]
    """One piece of work, finished when it returns. An array that it returns may be compared."""
    items: int
    """What one piece handles: images, prompts, sequences."""
    flops: float | None = None
    """Operations of one piece as `models.flops` counts them, where that is known."""
    about: dict[str, Any] = field(default_factory=dict)
    """What else to tell: parameters, kernels, tiles."""


Builder = Callable[[Settings], Workload]


def torch_device() -> str:
    """ "cuda" where PyTorch has one, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def synchronize_torch() -> None:
    """Waits for the GPU's queue."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_bytes() -> int:
    """Most memory so far: of the GPU that this process uses, else resident (Linux)."""
    if torch := sys.modules.get("torch"):
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated()
    elif (jax := sys.modules.get("jax")) and (stats := jax.devices()[0].memory_stats()):
        return stats.get("peak_bytes_in_use", 0)
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text()) if status.exists() else None
    return 1024 * int(found[1]) if found else 0
