"""Backbone modules: patches, positions, DiT blocks and output layer (paper, section 3.4)."""

import functools

import einops
import flax.linen as nn
import jax.numpy as jnp
from flax.linen.spmd import with_logical_constraint
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from lidit_jax.config.schema import ModelConfig
from lidit_jax.models.convolution import Convolution
from lidit_jax.models.layers import (
    Attention,
    Dense,
    Mlp,
    Modulation,
    gated,
    layer_norm,
    modulate,
    rms_norm,
)
from lidit_jax.models.rematerialization import BLOCK_INPUT

Rotary = tuple[Float[Array, "N K"], Float[Array, "N K"]]


def patchify(x: Float[Array, "B h w C"], patch: int) -> Float[Array, "B N P"]:
    """Cut an image into `patch` x `patch` tokens, row by row; P = patch * patch * C."""
    return einops.rearrange(x, "b (h p) (w q) c -> b (h w) (p q c)", p=patch, q=patch)


def unpatchify(
    tokens: Float[Array, "B N P"], patch: int, grid: tuple[int, int]
) -> Float[Array, "B h w C"]:
    """Invert `patchify` for a grid of (rows, columns) tokens."""
    rows, columns = grid
    return einops.rearrange(
        tokens, "b (h w) (p q c) -> b (h p) (w q) c", h=rows, w=columns, p=patch, q=patch
    )


_convolution = functools.partial(
    Convolution, axes=("embed", "mlp"), kernel_init=nn.initializers.xavier_uniform()
)


class PositionResBlock(nn.Module):
    """ResBlock after patchify that replaces position embeddings (paper, section 3.4).

    The paper does not specify its layers. This one is pre-activation (arXiv 1603.05027): twice
    RMSNorm, SiLU and 3x3 convolution, plus the input.

    Zero padding encodes positions near the border, and the attention layers propagate them. The
    norm is per token, so the block works at any resolution.
    """

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"], grid: tuple[int, int]) -> Float[Array, "B N D"]:
        """Apply the block to tokens on a grid of (rows, columns)."""
        width = x.shape[-1]
        # Each image is on one device, with all tokens and channels: see `Convolution`.
        whole = lambda h: with_logical_constraint(h, ("batch", None, None, None))  # noqa: E731
        h = einops.rearrange(x, "b (h w) d -> b h w d", h=grid[0], w=grid[1])
        for i in range(2):
            h = whole(nn.silu(rms_norm(self.dtype, name=f"norm_{i}")(h)))
            h = whole(_convolution(width, self.dtype, name=f"conv_{i}")(h))
        return x + h.reshape(x.shape)


def rotary_positions(grid: tuple[int, int], head_width: int, theta: float = 100.0) -> Rotary:
    """Return axial 2-D RoPE (cos, sin), [N, K]: half of the frequencies by row, half by column.

    The base of 100 suits image grids (arXiv 2403.13298).
    """
    quarter = head_width // 4
    frequencies = theta ** -(jnp.arange(quarter, dtype=jnp.float32) / quarter)
    row, column = _coordinates(grid)
    angles = jnp.concatenate([row[:, None] * frequencies, column[:, None] * frequencies], axis=-1)
    angles = jnp.concatenate([angles, angles], axis=-1)
    return jnp.cos(angles), jnp.sin(angles)


def sincos_positions(
    grid: tuple[int, int], width: int, extent: float = 0.0, order: str = "row_first"
) -> Float[Array, "N D"]:
    """Return a fixed 2-D sinusoidal embedding: half of the channels by row, half by column.

    Args:
      grid: (rows, columns) of tokens.
      width: number of channels D.
      extent: number of positions that each side spans; 0 for one per token.
      order: "row_first", or "column_first" to put the columns in the first half.
    """
    quarter = width // 4
    frequencies = 10_000.0 ** -(jnp.arange(quarter, dtype=jnp.float32) / quarter)
    parts = []
    for coordinate, tokens in zip(_coordinates(grid), grid, strict=True):
        positions = coordinate * (extent / tokens) if extent else coordinate
        angles = positions[:, None] * frequencies
        parts.append(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1))
    return jnp.concatenate(parts if order == "row_first" else parts[::-1], axis=-1)


def _coordinates(grid: tuple[int, int]) -> tuple[Array, Array]:
    rows, columns = grid
    n = jnp.arange(rows * columns)
    return (n // columns).astype(jnp.float32), (n % columns).astype(jnp.float32)


class DiTBlock(nn.Module):
    """DiT block: self-attention, cross-attention, FFN and nine adaLN-zero vectors (figure 5).

    With `config.cross_attention="plain"` the cross-attention has no norm and none of the vectors.
    """

    config: ModelConfig
    dtype: DTypeLike
    quantization: str = "none"
    """See `Dense`."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        context: Float[Array, "B S D"],
        context_mask: Bool[Array, "B S"],
        condition: Float[Array, "B D"],
        rotary: Rotary | None,
    ) -> tuple[Float[Array, "B N D"], None]:
        """Return the new tokens and None, as a layer scan requires."""
        config, dtype = self.config, self.dtype
        x = checkpoint_name(x, BLOCK_INPUT)
        modulated = config.cross_attention == "modulated"
        vectors = Modulation(9 if modulated else 6, dtype, name="modulation")(condition)
        scale_s, shift_s, gate_s, *cross, scale_m, shift_m, gate_m = vectors
        self.sow("intermediates", "gates", (gate_s, *cross[2:], gate_m))

        h = modulate(layer_norm(dtype, affine=False, name="self_norm")(x), scale_s, shift_s)
        attention = functools.partial(
            Attention,
            config.heads,
            config.qk_norm,
            dtype,
            tokens="tokens",
            kernel=config.attention,
            quantization=self.quantization,
        )
        h = attention(name="self_attention")(h, h, rotary=rotary)
        x = gated(x, gate_s, h)
        h, gate_c = x, jnp.ones(())
        if modulated:
            scale_c, shift_c, gate_c = cross
            h = modulate(layer_norm(dtype, affine=False, name="cross_norm")(x), scale_c, shift_c)
        h = attention(name="cross_attention")(h, context, context_mask)
        x = gated(x, gate_c, h)
        h = modulate(layer_norm(dtype, affine=False, name="mlp_norm")(x), scale_m, shift_m)
        hidden = config.mlp_ratio * config.width
        h = Mlp(hidden, config.width, nn.gelu, dtype, quantization=self.quantization, name="mlp")(h)
        x = gated(x, gate_m, h)
        return with_logical_constraint(x, ("batch", "tokens", None)), None


class OutputLayer(nn.Module):
    """Output layer: adaLN and a zero-initialized linear layer to patches, in float32."""

    features: int
    dtype: DTypeLike
    modulation: str = "linear"
    """See `ModelConfig.output_modulation`."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N D"], condition: Float[Array, "B D"]
    ) -> Float[Array, "B N P"]:
        """Predict patches from tokens and the backbone's condition."""
        if self.modulation == "table":
            table = self.param(
                "table",
                nn.with_logical_partitioning(nn.initializers.zeros, (None, "embed")),
                (2, x.shape[-1]),
                unbox=True,
            )
            scale, shift = jnp.split(table + condition[:, None].astype(jnp.float32), 2, axis=1)
        else:
            scale, shift = Modulation(2, self.dtype, name="modulation")(condition)
        h = modulate(layer_norm(self.dtype, affine=False, name="norm")(x), scale, shift)
        return Dense(
            self.features,
            ("embed", None),
            jnp.float32,
            kernel_init=nn.initializers.zeros,
            name="linear",
        )(h)
