"""What a device can do at best, for the share of it that a run uses."""

from __future__ import annotations

import jax

# Dense bfloat16 products without sparsity, operations a second of one JAX device, by the beginning
# of `device_kind`. TPU: https://cloud.google.com/tpu/docs (v4 and v5p: a chip is one device; v7:
# two). NVIDIA: data sheets of the SXM modules.
_PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(device: jax.Device) -> float | None:
    """bfloat16 operations a second of one device; None for kinds without a published figure."""
    for kind, flops in _PEAK_FLOPS.items():
        if device.device_kind.startswith(kind):
            return flops
    return None
