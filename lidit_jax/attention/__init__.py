"""One attention call for the whole model: image to image, image to text, text to text."""

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
