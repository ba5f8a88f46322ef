"""Detection of the NVIDIA driver, JAX's CUDA plugin and cuDNN, without loading them."""

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
    """Version of the cuDNN package for the same CUDA version; JAX's fused attention uses it."""

    def needs_newer_than(self, driver: str) -> bool:
        """Return whether the driver is too old for the plugin."""
        return "cuda13" in self.name and _major(driver) < _CUDA_13_DRIVER


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver, or None if no GPU responds."""
    return _ask_driver("driver_version")


def compute_capability() -> tuple[int, int] | None:
    """Return the first GPU's compute capability, such as (9, 0) for Hopper; None if no GPU."""
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
    """Return the pip extra of lidit-jax for a driver version; CUDA 13 needs 580 or later."""
    return "cuda" if _major(driver) >= _CUDA_13_DRIVER else "cuda12"


def plugin() -> Plugin | None:
    """Return the plugin that JAX would load, newest CUDA first; None if none is installed."""
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
