"""Multi-head attention with one interface and several implementations, chosen per device.

`attention` runs a reference in plain JAX, or a fused kernel (splash on TPUs, cuDNN on GPUs) where
one is faster, and can split the queries over the mesh's `context` axis. Projections, norms and
rotary embeddings are layers of `lidit_jax.models`.
"""

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
