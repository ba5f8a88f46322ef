"""Splash attention on TPUs: JAX's Pallas kernel with a fused backward pass.

Scores never leave the core, so memory grows with N + S instead of N x S. The kernel works on one
device's part: batch and heads are split by the mesh, queries too where an image's tokens are.
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
"""The one head width below 128 that the kernel takes as it is."""


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
    """Equals `reference_attention`, rows without a valid key included.

    Args:
      q: queries.
      k: keys; H/G query heads read each of their heads.
      v: values.
      mask: keys that may be attended to; None for all.
      causal: whether query i sees only keys 0..query_offset+i.
      query_offset: position of the first query among the keys.
      scale: factor of the products; K**-0.5 by default.
      split_queries: whether the mesh's `context` axis splits N; keys are always whole. Not with
        `causal`, where a part would have to know its place.
      generation: of the TPU, for the tiles.
      interpret: run the kernel in plain JAX, for tests without a TPU.
      tiles: instead of those chosen for the lengths on one device.
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
        # The kernel does not say along which axes its results vary.
        check_vma=False,
    )(q, k, v, mask)


def _dividing(mesh: AbstractMesh, names: tuple[str, ...], size: int) -> tuple[str, ...] | None:
    """Those of the axes that exist, if together they divide `size`; else None: every device then
    computes the whole."""
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
        """[B, heads, length, width], zeros behind."""
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
        # Every key head with its queries; all of them share the valid keys.
        kernel = jax.vmap(kernel, in_axes=(0, 0, 0, None))
    if mask is None and padded_s == S:
        out = jax.vmap(lambda *qkv: kernel(*qkv, None))(*inputs)
    else:
        valid = jnp.ones((B, S), bool) if mask is None else mask
        # Queries are segment 1, and so are the keys that they may read.
        ids = kernels.SegmentIds(
            q=jnp.ones((B, padded_n), jnp.int32),
            kv=jnp.pad(valid.astype(jnp.int32), ((0, 0), (0, padded_s - S))),
        )
        out = jax.vmap(kernel)(*inputs, ids)
    assert isinstance(out, jax.Array)  # nothing else was asked for
    out = out.reshape(B, H, padded_n, width)[:, :, :N, :K].swapaxes(1, 2)
    if mask is None:
        return out
    # Without a valid key the kernel averages all values.
    any_key = _seen(mask, N, query_offset) if causal else jnp.any(mask, axis=1, keepdims=True)
    return jnp.where(any_key[:, :, None, None], out, 0)


def _seen(mask: Bool[Array, "B S"], queries: int, query_offset: int) -> Bool[Array, "B N"]:
    """Whether there is a valid key among keys 0..query_offset+i of query i."""
    more = max(query_offset + queries - mask.shape[1], 0)
    seen = jax.lax.cummax(jnp.pad(mask, ((0, 0), (0, more))).astype(jnp.int32), axis=1)
    return seen[:, query_offset : query_offset + queries].astype(bool)


def _make_kernel(
    mask: masks.Mask, heads: int, key_heads: int, tiles: Tiles, interpret: bool
) -> kernels.SplashAttentionKernel:
    """For all heads, or for the query heads of one key head where there are fewer of these."""
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
