"""Generation and peak performance of devices."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from jax.experimental.compilation_cache import compilation_cache

from lidit_jax.hardware.jax_device import JaxDevice
from lidit_jax.hardware.known_faults import STORED_PROGRAMS
from lidit_jax.hardware.topologies import GENERATIONS

_SPELLINGS = {
    "v4": ("v4",),
    "v5e": ("v5 lite", "v5e"),
    "v5p": ("v5", "v5p"),
    "v6e": ("v6 lite", "v6e"),
    "tpu7x": ("7x", "v7x", "v7"),
}
# Dense bfloat16 FLOPs per second without sparsity, from NVIDIA's data sheets of the SXM modules.
_GPU_FLOPS = {"NVIDIA A100": 312e12, "NVIDIA H100": 989e12, "NVIDIA H200": 989e12}


def tpu_generation(device_kind: str) -> str | None:
    """Return "v5e", "v5p", ... for JAX's device kind ("TPU v5 lite"); None if unknown."""
    kind = device_kind.lower().removeprefix("tpu").strip()
    return next((name for name, spellings in _SPELLINGS.items() if kind in spellings), None)


def peak_flops(device: JaxDevice) -> float | None:
    """Return peak bfloat16 FLOPs per second of a device; None without a published figure."""
    return peak_of_kind(device.device_kind)


def peak_of_kind(kind: str) -> float | None:
    """Return `peak_flops` for a device kind as spelled by JAX or PyTorch."""
    if generation := tpu_generation(kind):
        return GENERATIONS[generation].flops
    return next((flops for name, flops in _GPU_FLOPS.items() if kind.startswith(name)), None)


def disable_unsafe_compilation_cache(devices: Sequence[JaxDevice]) -> None:
    """Disable JAX's compilation cache on devices where cached programs are not safe to run.

    See `lidit_jax.hardware.known_faults`.
    """
    if STORED_PROGRAMS.happens(devices):
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()
