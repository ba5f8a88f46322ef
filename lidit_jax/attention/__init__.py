"""One attention function for the whole model; the fastest kernel for the devices is chosen."""

from lidit_jax.attention.dispatch import (
    KERNELS,
    attention,
    attention_kernel,
    chosen_kernel,
    device_in_use,
)
from lidit_jax.attention.reference import attention_weights, reference_attention

__all__ = [
    "KERNELS",
    "attention",
    "attention_kernel",
    "attention_weights",
    "chosen_kernel",
    "device_in_use",
    "reference_attention",
]
