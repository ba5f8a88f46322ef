"""Benchmark of attention forward and backward, in the shapes of a recipe's backbone."""

from __future__ import annotations

from typing import Any

import numpy as np

from lidit_jax.benchmarks.workload import (
    Builder,
    Settings,
    Workload,
    synchronize_torch,
    torch_device,
)


def shape_of(settings: Settings) -> tuple[int, int, int, int]:
    """Return B, N, H and K: a batch of images as tokens, and the model's heads."""
    config = settings.recipe()
    heads = config.model.heads
    return settings.batch, config.image_tokens, heads, config.model.width // heads


def jax_workload(settings: Settings, kernel: str = "auto") -> Workload:
    """Build the workload of `lidit_jax.attention.attention`, with a kernel or plain products."""
    import jax
    import jax.numpy as jnp

    from lidit_jax.attention import attention, chosen_kernel, device_in_use

    q, k, v = (jnp.asarray(a, settings.dtype) for a in _inputs(settings))
    chosen = chosen_kernel(kernel, device_in_use(), q, k.shape[1])

    def loss(q: Any, k: Any, v: Any) -> Any:
        return jnp.sum(attention(q, k, v, kernel=kernel).astype(jnp.float32) ** 2)

    step = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    about = {"kernel": chosen}
    if chosen == "splash":
        from lidit_jax.attention.tiles import choose_tiles, generation_of

        generation = generation_of(device_in_use().kind)
        lengths = q.shape[1], k.shape[1]
        about["tiles"] = str(choose_tiles(generation, q.shape[3], *lengths, q.dtype.itemsize))
    return Workload(
        lambda: jax.block_until_ready(step(q, k, v)), settings.batch, _flops(settings), about
    )


def torch_workload(settings: Settings) -> Workload:
    """Build the workload of PyTorch's SDPA: FlashAttention or cuDNN on GPUs."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    kind = getattr(torch, settings.dtype)
    q, k, v = (
        torch.from_numpy(a).transpose(1, 2).to(torch_device(), kind).requires_grad_()
        for a in _inputs(settings)
    )

    def run() -> None:
        for x in (q, k, v):
            x.grad = None
        scaled_dot_product_attention(q, k, v).float().square().sum().backward()
        synchronize_torch()

    return Workload(run, settings.batch, _flops(settings), {"torch": torch.__version__})


def _inputs(settings: Settings) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape_of(settings)).astype(np.float32) for _ in range(3)]


def _flops(settings: Settings) -> float:
    """Return the FLOPs of a training step: six matrix products, without recomputation."""
    B, N, H, K = shape_of(settings)
    return 6 * 2.0 * B * H * N * N * K


CANDIDATES: dict[str, Builder] = {
    "lidit-jax": jax_workload,
    "lidit-jax, plain products": lambda settings: jax_workload(settings, "reference"),
    "PyTorch, SDPA": torch_workload,
}
