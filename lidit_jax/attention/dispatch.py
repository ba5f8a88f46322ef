"""Selection of the attention kernel, by name or by the devices of the current mesh."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Float

from lidit_jax.attention.gpu import cudnn_supports, gpu_attention
from lidit_jax.attention.reference import reference_attention
from lidit_jax.attention.tiles import generation_of
from lidit_jax.config.schema import ModelConfig
from lidit_jax.config.values import choices
from lidit_jax.errors import LiditError
from lidit_jax.hardware.jax_device import JaxDevice

KERNELS = choices(ModelConfig, "attention")
MIN_KERNEL_SCORES = 2**17
"""Scores per head, N x S, from which splash is faster than plain attention: below, starting the
kernel (about a third of a microsecond per tile) costs more than moving the scores through
memory."""


class Device(NamedTuple):
    """Platform and kind of the devices that the program will run on."""

    platform: str
    """ "tpu", "gpu" or "cpu"."""
    kind: str
    """Device kind in JAX's spelling, such as "TPU v5 lite"."""


def attention(
    q: Float[Array, "B N H K"],
    k: Float[Array, "B S G K"],
    v: Float[Array, "B S G K"],
    mask: Bool[Array, "B S"] | None = None,
    *,
    causal: bool = False,
    query_offset: int = 0,
    scale: float | None = None,
    kernel: str = "auto",
    split_queries: bool = False,
    exact: bool = False,
    **plain: Any,
) -> Float[Array, "B N H K"]:
    """Compute multi-head attention; rows without a valid key, and their gradients, are exactly 0.

    Args:
      q: queries.
      k: keys; H/G query heads share each key head.
      v: values.
      mask: keys that may be attended to; None for all.
      causal: whether query i sees only keys 0..query_offset+i.
      query_offset: position of the first query among the keys.
      scale: factor of the products; K**-0.5 by default.
      kernel: one of `KERNELS`; "splash" without a TPU is interpreted, which is slow.
      split_queries: whether the mesh's `context` axis splits N.
      exact: whether to compute float32 products in full precision; selects plain attention.
      plain: `allowed`, `soft_cap` and `bias` of `attention_weights`, which no kernel supports.

    Returns:
      The weighted values, in the type of `v`.

    Raises:
      LiditError: when there is no such kernel, or cuDNN is asked for and cannot take these inputs
        or has no NVIDIA GPU to run on.
    """
    device = device_in_use()
    if kernel == "cudnn" and not cudnn_supports(q.dtype, q.shape[-1]):
        raise LiditError(
            f"config.model.attention='cudnn' needs 16-bit heads of 8, 16, ... 128 channels, not "
            f"{q.dtype} of {q.shape[-1]}: use 'auto'"
        )
    if kernel == "cudnn" and not _is_nvidia(device):
        raise LiditError(
            f"config.model.attention='cudnn' runs on NVIDIA GPUs only, not on {device.kind} "
            f"({device.platform}): use 'auto'"
        )
    chosen = chosen_kernel(kernel, device, q, k.shape[1])
    given = {name: value for name, value in plain.items() if value is not None}
    if given or (exact and q.dtype.itemsize >= 4):
        chosen = "reference"
    options = {"causal": causal, "query_offset": query_offset, "scale": scale}
    if chosen == "splash":
        # Importing the kernel's module takes a second, so only runs that use it import it.
        from lidit_jax.attention.splash import splash_attention

        return splash_attention(
            q,
            k,
            v,
            mask,
            **options,
            split_queries=split_queries,
            generation=generation_of(device.kind),
            interpret=device.platform != "tpu",
        )
    if chosen == "cudnn":
        return gpu_attention(q, k, v, mask, **options)
    return reference_attention(q, k, v, mask, exact=exact, **options, **given)


def chosen_kernel(
    kernel: str, device: Device, q: jax.Array | jax.ShapeDtypeStruct, keys: int
) -> str:
    """Return "splash", "cudnn" or "reference" for queries `q` [B, N, H, K] and S keys.

    Raises:
      LiditError: when there is no such kernel.
    """
    if kernel not in KERNELS:
        raise LiditError(f"no attention kernel {kernel!r}: choose from {', '.join(KERNELS)}")
    if kernel != "auto":
        return kernel
    if device.platform == "tpu":
        return "splash" if q.shape[1] * keys >= MIN_KERNEL_SCORES else "reference"
    if _is_nvidia(device):
        return "cudnn" if cudnn_supports(q.dtype, q.shape[-1]) else "reference"
    return "reference"


def _is_nvidia(device: Device) -> bool:
    return device.platform == "gpu" and "NVIDIA" in device.kind


def attention_kernel(device: JaxDevice) -> str:
    """Return the kernel that "auto" selects for the 1B recipe at 512 px, in bfloat16."""
    q = jax.ShapeDtypeStruct((1, 1024, 16, 72), jax.numpy.bfloat16)
    return chosen_kernel("auto", Device(device.platform, device.device_kind), q, 1024)


def device_in_use() -> Device:
    """Return the device type of the mesh set by `jax.set_mesh`, or of the default device.

    The two differ when compiling for a TPU on a machine without one.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and mesh.abstract_device is not None:
        return Device(mesh.abstract_device.platform, mesh.abstract_device.device_kind)
    device = jax.config.values["jax_default_device"] or jax.devices()[0]
    if isinstance(device, str):
        device = jax.devices(device)[0]
    return Device(device.platform, device.device_kind)
