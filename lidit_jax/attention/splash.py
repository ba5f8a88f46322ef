"""Splash attention on TPUs: JAX's Pallas kernel with a fused backward pass.

Scores never leave the core, so memory grows with N + S instead of N x S. Each device runs the
kernel on its shard: the mesh splits batch and heads and, along its `context` axis, queries.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as kernels,
)
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import AbstractMesh, PartitionSpec
from jaxtyping import Array, Bool, Float

from lidit_jax.attention.names import ATTENTION_OUTPUT
from lidit_jax.attention.tiles import LANES, Tiles, choose_tiles, padded
from lidit_jax.parallel.mesh import BATCH_AXES

_NARROW = 64
"""The only head width below 128 that the kernel accepts without padding."""


def splash_attention(
    q: Float[Array, "B N H K"],
    k: Float[Array, "B S G K"],
    v: Float[Array, "B S G K"],
    mask: Bool[Array, "B S"] | None = None,
    *,
    causal: bool = False,
    query_offset: int = 0,
    scale: float | None = None,
    split_queries: bool = False,
    generation: str = "v5e",
    interpret: bool = False,
    tiles: Tiles | None = None,
) -> Float[Array, "B N H K"]:
    """Compute the same as `reference_attention`, rows without a valid key included, on a TPU.

    Args:
      q: queries.
      k: keys; H/G query heads share each key head.
      v: values.
      mask: keys that may be attended to; None for all.
      causal: whether query i sees only keys 0..query_offset+i.
      query_offset: position of the first query among the keys.
      scale: factor of the products; K**-0.5 by default.
      split_queries: whether the mesh's `context` axis splits N; keys are never split. Not
        supported with `causal`, where a shard would need its offset.
      generation: TPU generation, which determines the tiles.
      interpret: whether to run the kernel in plain JAX, for tests without a TPU.
      tiles: tile sizes to use instead of those chosen for the lengths on one device.
    """
    local = functools.partial(
        _on_one_device,
        causal=causal,
        query_offset=query_offset,
        scale=scale,
        generation=generation,
        interpret=interpret,
        tiles=tiles,
    )
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return local(q, k, v, mask)
    rows = _dividing(mesh, BATCH_AXES, q.shape[0])
    heads = _dividing(mesh, ("tensor",), k.shape[2])
    tokens = _dividing(mesh, ("context",), q.shape[1]) if split_queries and not causal else None
    queries, keys = (PartitionSpec(rows, n, heads, None) for n in (tokens, None))
    mask_spec = None if mask is None else PartitionSpec(rows, None)
    return jax.shard_map(
        local,
        in_specs=(queries, keys, keys, mask_spec),
        out_specs=queries,
        # The kernel does not declare the mesh axes along which its results vary.
        check_vma=False,
    )(q, k, v, mask)


def _dividing(mesh: AbstractMesh, names: tuple[str, ...], size: int) -> tuple[str, ...] | None:
    """Return those of the axes that the mesh has, if together they divide `size`; else None, and
    every device computes the whole."""
    axes = tuple(name for name in names if mesh.shape.get(name, 1) > 1)
    return axes if axes and size % math.prod(mesh.shape[name] for name in axes) == 0 else None


def _on_one_device(
    q: Float[Array, "B N H K"],
    k: Float[Array, "B S G K"],
    v: Float[Array, "B S G K"],
    mask: Bool[Array, "B S"] | None,
    *,
    causal: bool,
    query_offset: int,
    scale: float | None,
    generation: str,
    interpret: bool,
    tiles: Tiles | None,
) -> Float[Array, "B N H K"]:
    B, N, H, K = q.shape
    S, G = k.shape[1:3]
    tiles = tiles or choose_tiles(generation, K, N, S, q.dtype.itemsize)
    width = _NARROW if K <= _NARROW else padded(K, LANES)
    padded_n, padded_s = padded(N, tiles.query), padded(S, tiles.key)

    def arranged(x: Array, length: int) -> Array:
        """Return `x` as [B, heads, length, width], padded with zeros at the end."""
        more = ((0, 0), (0, 0), (0, length - x.shape[1]), (0, width - K))
        return jnp.pad(x.swapaxes(1, 2), more)

    shape = (padded_n, padded_s)
    kernel_mask = masks.CausalMask(shape, query_offset) if causal else masks.FullMask(shape)
    kernel = _make_kernel(kernel_mask, H, G, tiles, interpret)
    scaled = (q.astype(jnp.float32) * (K**-0.5 if scale is None else scale)).astype(q.dtype)
    inputs = arranged(scaled, padded_n), arranged(k, padded_s), arranged(v, padded_s)
    if G != H:
        queries, *others = inputs
        inputs = queries.reshape(B, G, H // G, padded_n, width), *others
        # One kernel call per key head with its queries; all share the mask of valid keys.
        kernel = jax.vmap(kernel, in_axes=(0, 0, 0, None))
    if mask is None and padded_s == S:
        out = jax.vmap(lambda *qkv: kernel(*qkv, None))(*inputs)
    else:
        valid = jnp.ones((B, S), bool) if mask is None else mask
        # Queries and the keys that they may attend to are segment 1.
        ids = kernels.SegmentIds(
            q=jnp.ones((B, padded_n), jnp.int32),
            kv=jnp.pad(valid.astype(jnp.int32), ((0, 0), (0, padded_s - S))),
        )
        out = jax.vmap(kernel)(*inputs, ids)
    assert isinstance(out, jax.Array)  # no residuals were requested
    out = out.reshape(B, H, padded_n, width)[:, :, :N, :K].swapaxes(1, 2)
    if mask is None:
        return out
    # Without a valid key the kernel averages all values.
    any_key = _seen(mask, N, query_offset) if causal else jnp.any(mask, axis=1, keepdims=True)
    return jnp.where(any_key[:, :, None, None], out, 0)


def _seen(mask: Bool[Array, "B S"], queries: int, query_offset: int) -> Bool[Array, "B N"]:
    """Return whether query i has a valid key among keys 0..query_offset+i."""
    more = max(query_offset + queries - mask.shape[1], 0)
    seen = jax.lax.cummax(jnp.pad(mask, ((0, 0), (0, more))).astype(jnp.int32), axis=1)
    return seen[:, query_offset : query_offset + queries].astype(bool)


def _make_kernel(
    mask: masks.Mask, heads: int, key_heads: int, tiles: Tiles, interpret: bool
) -> kernels.SplashAttentionKernel:
    """Return the kernel for all heads or, if heads are grouped, the query heads of one key head."""
    same = heads == key_heads
    make = kernels.make_splash_mha if same else kernels.make_splash_mqa
    return make(
        masks.MultiHeadMask([mask] * (heads if same else heads // key_heads)),
        block_sizes=kernels.BlockSizes(
            block_q=tiles.query,
            block_kv=tiles.key,
            block_kv_compute=tiles.key_compute,
            block_q_dkv=tiles.query,
            block_kv_dkv=tiles.key,
            block_kv_dkv_compute=tiles.key_compute,
            use_fused_bwd_kernel=True,
        ),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=ATTENTION_OUTPUT,
        interpret=interpret,
    )
