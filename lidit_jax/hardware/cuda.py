"""What this machine has for CUDA: the driver, JAX's plugin for it, and cuDNN. Nothing is loaded."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata

_CUDA_13_DRIVER = 580


@dataclass(frozen=True)
class Plugin:
    """JAX's plugin for one version of CUDA."""

    name: str
    version: str
    cudnn: str | None
    """Version of the cuDNN package of the same CUDA, by which JAX offers fused attention."""

    def needs_newer_than(self, driver: str) -> bool:
        """Whether the driver is too old for it."""
        return "cuda13" in self.name and _major(driver) < _CUDA_13_DRIVER


def driver_version() -> str | None:
    """Version of the NVIDIA driver, or None where no GPU answers."""
    return _ask_driver("driver_version")


def compute_capability() -> tuple[int, int] | None:
    """Of the first GPU: (9, 0) for Hopper, (10, 0) for a B200; None where no GPU answers."""
    major, _, minor = (_ask_driver("compute_cap") or "").partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


def _ask_driver(field: str) -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    query = ("nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader")
    try:
        result = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = result.stdout.split()
    return lines[0] if result.returncode == 0 and lines else None


def extra_for(driver: str) -> str:
    """The extra of lidit-jax for a driver: CUDA 13 needs 580 or later."""
    return "cuda" if _major(driver) >= _CUDA_13_DRIVER else "cuda12"


def plugin() -> Plugin | None:
    """The plugin that JAX would load, the newest CUDA first; None when there is none."""
    for cuda in ("13", "12"):
        name = f"jax-cuda{cuda}-plugin"
        if version := _version(name):
            return Plugin(name, version, _version(f"nvidia-cudnn-cu{cuda}"))
    return None


def _major(version: str) -> int:
    digits = version.partition(".")[0]
    return int(digits) if digits.isdecimal() else 0


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
