"""LI-DiT's network in plain PyTorch.

It was written from the paper (arXiv 2406.11831, sections 3.2 to 3.4 and figure 5), not from the JAX
code, and uses PyTorch's own pieces wherever there is one (`scaled_dot_product_attention`, `Conv2d`
patches, `pixel_shuffle`): the tests compare the JAX model with it. Modules and parameters are named
as in diffusers, and adaLN vectors are in DiT's order: shift, scale, gate. Image arrays are NHWC at
the interface. Letters of shapes: B batch, N image tokens, S text tokens, D width, H heads, K head
width, C latent channels, k stream (one LLM each).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from lidit_jax.pytorch.layers import (
    EPSILON,
    AdaLayerNormTable,
    AdaLayerNormZero,
    Attention,
    FeedForward,
    Rotary,
    SizeEmbedder,
    TimestepEmbedder,
    modulated_norm,
    rotary_table,
    sincos_table,
)


class TokenRefinerBlock(nn.Module):
    """Block of the linguistic refiner: pre-norm self-attention and FFN with gates (paper, 3.2)."""

    def __init__(self, config: Any):
        super().__init__()
        width, refiner = config.width, config.refiner
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=EPSILON) for _ in range(2))
        self.attn = Attention(width, config.heads, qk_norm=False, causal=refiner.causal)
        self.ff = FeedForward(width, refiner.mlp_ratio * width, width, nn.SiLU())
        self.norm_out = AdaLayerNormZero(width, 2) if refiner.gate else None

    def forward(self, x: Tensor, mask: Tensor, condition: Tensor) -> Tensor:
        """Map x [B, S, D], mask [B, S], condition [B, D] to [B, S, D]."""
        gates = (1.0, 1.0) if self.norm_out is None else self.norm_out(condition)
        normed = self.norm1(x)
        x = x + gates[0] * self.attn(normed, normed, mask)
        return x + gates[1] * self.ff(self.norm2(x))


class LayerMix(nn.Module):
    """Concatenation, or average of the normalized layers, of several layers of one LLM."""

    def __init__(self, kind: str, layers: int):
        super().__init__()
        self.kind = kind
        learned = kind == "learned_average" and layers > 1
        self.weight = nn.Parameter(torch.zeros(layers)) if learned else None

    def forward(self, states: Tensor) -> Tensor:
        """Map states [B, S, n, D] to [B, S, n D] for "concatenate", else to [B, S, D]."""
        if self.kind == "concatenate":
            return states.flatten(2)
        states = F.layer_norm(states, states.shape[-1:], eps=EPSILON)
        if self.weight is None:
            return states.mean(dim=2)
        weights = self.weight.float().softmax(dim=0)
        return (states * weights[:, None]).sum(dim=2).to(states.dtype)


class LinguisticRefiner(nn.Module):
    """Linguistic token refiner of one LLM (paper, 3.2)."""

    def __init__(self, config: Any, feature_width: int, layers: int = 1):
        super().__init__()
        width = config.width
        self.options = refiner = config.refiner
        self.layer_mix = LayerMix(refiner.layer_mix, layers)
        normed = refiner.feature_norm == "rms"
        self.norm_in = nn.RMSNorm(feature_width, EPSILON) if normed else nn.Identity()
        self.proj_in = (
            nn.Linear(feature_width, width)
            if refiner.projection == "linear"
            else FeedForward(feature_width, width, width, nn.GELU("tanh"))
        )
        self.text_embedder = (
            FeedForward(feature_width, width, width, nn.SiLU()) if refiner.pool != "none" else None
        )
        self.timestep_embedder = TimestepEmbedder(width) if refiner.own_time_embedder else None
        self.refiner_blocks = nn.ModuleList(
            TokenRefinerBlock(config) for _ in range(refiner.blocks)
        )

    def forward(
        self, features: Tensor, mask: Tensor, t: Tensor, time_embedding: Tensor, prefix_length: int
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return tokens [B, S, D], pooled vector [B, D] and the condition [B, D] of the gates."""
        padding = ~mask.reshape(*mask.shape, *[1] * (features.ndim - 2))
        features = features.to(time_embedding.dtype).masked_fill(padding, 0.0)
        if features.ndim == 4:
            features = self.layer_mix(features)
        normed = self.norm_in(features)
        own = self.timestep_embedder
        condition = time_embedding if own is None else own(t)
        pooled = None
        if self.text_embedder is not None:
            source = features if self.options.pool_raw else normed
            pooled = self.text_embedder(self._mean(source, mask, prefix_length))
            condition = condition + pooled
        x = self.proj_in(normed)
        for block in self.refiner_blocks:
            x = block(x, mask, condition)
        return x, pooled, condition

    def _mean(self, tokens: Tensor, mask: Tensor, prefix_length: int) -> Tensor:
        """Return the mean [B, D_k] of the tokens [B, S, D_k] in the pooled vector."""
        chosen = mask.clone()
        if self.options.pool == "prompt":
            chosen[:, :prefix_length] = False
        weights = chosen.float() / chosen.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.einsum("bs,bsd->bd", weights, tokens.float()).to(tokens.dtype)


class CollaborativeBlock(nn.Module):
    """Cross-attention from one stream to the others and FFN, with adaLN-zero (paper, 3.3)."""

    def __init__(self, config: Any):
        super().__init__()
        width = config.width
        self.norm = AdaLayerNormZero(width, 6)
        self.attn = Attention(width, config.heads, qk_norm=False)
        self.ff = FeedForward(width, config.refiner.mlp_ratio * width, width, nn.SiLU())

    def forward(self, x: Tensor, others: Tensor, others_mask: Tensor, condition: Tensor) -> Tensor:
        """Map x [B, S, D], others [B, R, D], others_mask [B, R], condition [B, D] to [B, S, D]."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.norm(condition)
        others = F.layer_norm(others, others.shape[-1:], eps=EPSILON)
        x = x + gate_a * self.attn(modulated_norm(x, shift_a, scale_a), others, others_mask)
        return x + gate_f * self.ff(modulated_norm(x, shift_f, scale_f))


class CollaborativeRefiner(nn.ModuleList):
    """Simultaneous cross-attention of every stream to the others, in rounds (paper, 3.3)."""

    def __init__(self, config: Any, streams: int):
        rounds = config.refiner.collaborative_blocks if streams > 1 else 0
        super().__init__(
            nn.ModuleList(CollaborativeBlock(config) for _ in range(streams)) for _ in range(rounds)
        )

    def forward(
        self, tokens: Sequence[Tensor], masks: Sequence[Tensor], conditions: Sequence[Tensor]
    ) -> list[Tensor]:
        """Refine tokens [B, S_k, D], with masks [B, S_k] and conditions [B, D], of every stream."""
        tokens = list(tokens)
        for blocks in self:
            assert isinstance(blocks, nn.ModuleList)
            incoming = list(tokens)
            for k, block in enumerate(blocks):
                rest = [j for j in range(len(incoming)) if j != k]
                others = torch.cat([incoming[j] for j in rest], dim=1)
                others_mask = torch.cat([masks[j] for j in rest], dim=1)
                tokens[k] = block(incoming[k], others, others_mask, conditions[k])
        return tokens


class PositionResBlock(nn.Module):
    """Convolutional position encoding: a pre-activation ResBlock, zero-padded (paper, 3.4)."""

    def __init__(self, width: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(width, EPSILON) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Add position to x [B, D, rows, columns]."""
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(F.silu(norm(h.movedim(1, -1))).movedim(-1, 1))
        return x + h


class TransformerBlock(nn.Module):
    """DiT block: self-attention, cross-attention, FFN with nine adaLN vectors (figure 5).

    "Plain" cross-attention, as in PixArt, has no norm and no adaLN vectors.
    """

    def __init__(self, config: Any):
        super().__init__()
        width = config.width
        self.plain = config.cross_attention == "plain"
        self.norm = AdaLayerNormZero(width, 6 if self.plain else 9)
        self.attn1, self.attn2 = (
            Attention(width, config.heads, qk_norm=config.qk_norm) for _ in range(2)
        )
        self.ff = FeedForward(width, config.mlp_ratio * width, width, nn.GELU("tanh"))

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        context_mask: Tensor,
        condition: Tensor,
        rotary: Rotary | None,
    ) -> Tensor:
        """Map x [B, N, D], context [B, S, D], its mask, condition [B, D] to [B, N, D]."""
        shift1, scale1, gate1, *cross, shift3, scale3, gate3 = self.norm(condition)
        h = modulated_norm(x, shift1, scale1)
        x = x + gate1 * self.attn1(h, h, rotary=rotary)
        if self.plain:
            x = x + self.attn2(x, context, context_mask)
        else:
            shift2, scale2, gate2 = cross
            x = x + gate2 * self.attn2(modulated_norm(x, shift2, scale2), context, context_mask)
        return x + gate3 * self.ff(modulated_norm(x, shift3, scale3))


class LIDiTTransformer(nn.Module):
    """Denoising network: refiners and DiT.

    Args:
      config: the part "model" of the configuration, with its fields as attributes.
      feature_widths: width D_k of each LLM's features, once its layers are combined.
      channels: latent channels C.
      layers: number of layers of each LLM; None for one.
    """

    def __init__(
        self,
        config: Any,
        feature_widths: Sequence[int],
        channels: int,
        layers: Sequence[int] | None = None,
    ):
        super().__init__()
        self.config = config
        width = config.width
        self.time_embedder = TimestepEmbedder(width)
        self.size_embedder = SizeEmbedder(width) if config.size_embedding else None
        self.token_refiners = nn.ModuleList(
            LinguisticRefiner(config, d, n)
            for d, n in zip(feature_widths, layers or [1] * len(feature_widths), strict=True)
        )
        self.collaborative_refiner = CollaborativeRefiner(config, len(feature_widths))
        self.pos_embed = nn.Conv2d(channels, width, config.patch, stride=config.patch)
        self.pos_block = PositionResBlock(width) if "conv" in config.position else None
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(config) for _ in range(config.depth)
        )
        table = config.output_modulation == "table"
        self.norm_out = (AdaLayerNormTable if table else AdaLayerNormZero)(width, 2)
        self.proj_out = nn.Linear(width, channels * config.patch**2)

    def refine(
        self,
        features: Sequence[Tensor],
        masks: Sequence[Tensor],
        t: Tensor,
        time: Tensor,
        prefix_lengths: Sequence[int],
    ) -> tuple[list[tuple[Tensor, Tensor | None, Tensor]], Tensor, Tensor]:
        """Return the refiners' outputs, the context [B, S, D] and its mask.

        Args:
          features: of every LLM, [B, S_k, D_k].
          masks: of every LLM, [B, S_k].
          t: times [B].
          time: their embedding [B, D].
          prefix_lengths: number of every LLM's instruction tokens.
        """
        refined = [
            refiner(features[k], masks[k], t, time, prefix_lengths[k])
            for k, refiner in enumerate(self.token_refiners)
        ]
        tokens = self.collaborative_refiner(
            [x for x, _, _ in refined], masks, [condition for _, _, condition in refined]
        )
        context = torch.cat([x[:, n:] for x, n in zip(tokens, prefix_lengths, strict=True)], dim=1)
        context_mask = torch.cat(
            [m[:, n:] for m, n in zip(masks, prefix_lengths, strict=True)], dim=1
        )
        return refined, context, context_mask

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        features: Sequence[Tensor],
        masks: Sequence[Tensor],
        prefix_lengths: Sequence[int],
    ) -> Tensor:
        """Predict [B, h, w, C] from x_t [B, h, w, C], t [B] from 0 to 1000, and of every LLM the
        features [B, S_k, D_k], or [B, S_k, n, D_k] of n layers, masks [B, S_k] and number of
        instruction tokens."""
        time = self.time_embedder(t)
        if self.size_embedder is not None:
            height, width = (side * self.config.size_embedding for side in x_t.shape[1:3])
            time = time + self.size_embedder(height, width)
        refined, context, context_mask = self.refine(features, masks, t, time, prefix_lengths)
        condition = time + sum(pooled for _, pooled, _ in refined if pooled is not None)
        image = self.pos_embed(x_t.movedim(-1, 1).to(self.pos_embed.weight.dtype))
        if self.pos_block is not None:
            image = self.pos_block(image)
        rows, columns = image.shape[-2:]
        x = image.flatten(2).transpose(1, 2)
        places = torch.cartesian_prod(
            torch.arange(rows, device=x.device), torch.arange(columns, device=x.device)
        )
        rotary = None
        if "sincos" in self.config.position:
            x = x + self._sincos(places, (rows, columns)).to(x.dtype)
        if "rope" in self.config.position:
            rotary = rotary_table(places, x.shape[-1] // self.config.heads)
        for block in self.transformer_blocks:
            x = block(x, context, context_mask, condition, rotary)
        x = self.proj_out(modulated_norm(x, *self.norm_out(condition)))
        maps = x.transpose(1, 2).unflatten(-1, (rows, columns))
        return F.pixel_shuffle(maps, self.config.patch).movedim(1, -1).float()

    def _sincos(self, places: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return position embeddings [N, D] of (row, column) places [N, 2] on a grid."""
        if self.config.sincos_extent:
            places = places * (self.config.sincos_extent / places.new_tensor(grid))
        if self.config.sincos_order == "column_first":
            places = places.flip(-1)
        return sincos_table(places, self.config.width)
