"""TPU slice types by their Google Cloud names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from launcher.commands import LaunchError


@dataclass(frozen=True)
class Generation:
    """Properties of a TPU generation that a launcher needs."""

    runtime: str
    """Runtime image of the TPU VM, from https://cloud.google.com/tpu/docs/runtimes."""
    counts_cores: bool
    """Whether the number in the slice's name counts cores, two per chip, rather than chips."""


_GENERATIONS = {
    "v4": Generation("tpu-ubuntu2204-base", True),
    "v5litepod": Generation("v2-alpha-tpuv5-lite", False),
    "v5p": Generation("v2-alpha-tpuv5", True),
    "v6e": Generation("v2-alpha-tpuv6e", False),
}
_SHAPE = re.compile(r"(v4|v5litepod|v5p|v6e)-([1-9]\d*)")


@dataclass(frozen=True)
class Accelerator:
    """TPU slice type."""

    name: str
    """Google Cloud's name: v6e-64."""
    generation: Generation
    chips: int


def parse_accelerator(name: str | None) -> Accelerator:
    """Parse "v6e-64", "v5litepod-16", "v5p-256" (128 chips) or "v4-32" (16 chips).

    Raises:
      LaunchError: for any other name.
    """
    if not name:
        raise LaunchError("which TPU? --accelerator=v6e-64, v5litepod-16, v5p-256 or v4-32")
    if name.startswith(("tpu7x", "v7x")):
        raise LaunchError(f"{name}: TPU7x has no queued resources, use --on=gke")
    found = _SHAPE.fullmatch(name)
    if not found:
        raise LaunchError(
            f"--accelerator={name} is not known: v6e-N and v5litepod-N of N chips, v5p-N and v4-N "
            "of N/2 chips"
        )
    generation = _GENERATIONS[found[1]]
    return Accelerator(name, generation, int(found[2]) // (2 if generation.counts_cores else 1))
