"""LI-DiT's network in plain PyTorch.

It was written from the paper (arXiv 2406.11831, sections 3.2 to 3.4 and figure 5), not from the JAX
code, and uses PyTorch's own pieces wherever there is one (`scaled_dot_product_attention`, `Conv2d`
patches, `pixel_shuffle`): the tests compare the JAX model with it. Modules and parameters are named
as in diffusers, and adaLN vectors are in DiT's order: shift, scale, gate. Image arrays are NHWC at
the interface. Letters of shapes: B batch, N image tokens, S text tokens, D width, H heads, K head
width, C latent channels, k stream (one LLM each).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

EPSILON = 1e-6
TIME_FREQUENCIES = 256
ROTARY_BASE = 100.0
Rotary = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Multi-head attention from x to context."""

    def __init__(self, width: int, heads: int, qk_norm: bool, causal: bool = False):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))
        head_width = width // heads
        self.norm_q = nn.RMSNorm(head_width, EPSILON) if qk_norm else nn.Identity()
        self.norm_k = nn.RMSNorm(head_width, EPSILON) if qk_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        key_mask: Tensor | None = None,
        rotary: Rotary | None = None,
    ) -> Tensor:
        """Map x [B, N, D], context [B, S, D], key_mask [B, S], rotary 2 x [N, K/2] to [B, N, D]."""
        q, k, v = (
            projection(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, tokens in ((self.to_q, x), (self.to_k, context), (self.to_v, context))
        )
        q, k = self.norm_q(q), self.norm_k(k)
        if rotary is not None:
            q, k = apply_rotary(q, rotary), apply_rotary(k, rotary)
        allowed = None if key_mask is None else key_mask[:, None, None, :]
        if self.causal:
            lower = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
            allowed = lower if allowed is None else allowed & lower
        # A query with no key to attend to gets 0, as in PyTorch since 2.5.
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.to_out(out.transpose(1, 2).flatten(2))


def apply_rotary(x: Tensor, rotary: Rotary) -> Tensor:
    """Multiply the pairs (x_i, x_{i + K/2}), as complex numbers, by cos + i sin."""
    cos, sin = rotary
    real, imaginary = x.chunk(2, dim=-1)
    turned = torch.cat([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
    return turned.to(x.dtype)


class FeedForward(nn.Sequential):
    """Feed-forward network: linear_1, activation, linear_2."""

    linear_1: nn.Linear

    def __init__(self, inputs: int, hidden: int, outputs: int, activation: nn.Module):
        super().__init__()
        self.add_module("linear_1", nn.Linear(inputs, hidden))
        self.add_module("activation", activation)
        self.add_module("linear_2", nn.Linear(hidden, outputs))


class AdaLayerNormZero(nn.Module):
    """Linear map from the condition to `vectors` adaLN vectors [B, 1, D]."""

    def __init__(self, width: int, vectors: int):
        super().__init__()
        self.vectors = vectors
        self.linear = nn.Linear(width, vectors * width)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Return the adaLN vectors of a condition [B, D]."""
        return self.linear(F.silu(condition)).unsqueeze(1).chunk(self.vectors, dim=-1)


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Apply LayerNorm without learned parameters, then adaLN's scale and shift."""
    return F.layer_norm(x, x.shape[-1:], eps=EPSILON) * (1 + scale) + shift


class TimestepEmbedder(nn.Module):
    """Embedding of a time in 0..1000: 256 sinusoids, cosines first, and an MLP."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = FeedForward(TIME_FREQUENCIES, width, width, nn.SiLU())

    def forward(self, t: Tensor) -> Tensor:
        """Embed times t [B] as [B, D]."""
        half = TIME_FREQUENCIES // 2
        wave_numbers = [math.exp(-math.log(1e4) * k / half) for k in range(half)]
        angles = torch.outer(t.float(), torch.tensor(wave_numbers, device=t.device))
        sinusoids = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.mlp(sinusoids.to(self.mlp.linear_1.weight.dtype))


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
        self.proj_in = nn.Linear(feature_width, width)
        self.text_embedder = FeedForward(feature_width, width, width, nn.SiLU())
        self.timestep_embedder = TimestepEmbedder(width) if refiner.own_time_embedder else None
        self.refiner_blocks = nn.ModuleList(
            TokenRefinerBlock(config) for _ in range(refiner.blocks)
        )

    def forward(
        self, features: Tensor, mask: Tensor, t: Tensor, time_embedding: Tensor, prefix_length: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens [B, S, D], pooled vector [B, D] and the condition [B, D] of the gates."""
        dtype = self.proj_in.weight.dtype
        padding = ~mask.reshape(*mask.shape, *[1] * (features.ndim - 2))
        features = features.to(dtype).masked_fill(padding, 0.0)
        if features.ndim == 4:
            features = self.layer_mix(features)
        normed = self.norm_in(features)
        pooled_tokens = mask.clone()
        if self.options.pool == "prompt":
            pooled_tokens[:, :prefix_length] = False
        weights = pooled_tokens.float() / pooled_tokens.sum(dim=1, keepdim=True).clamp(min=1)
        source = features if self.options.pool_raw else normed
        mean = torch.einsum("bs,bsd->bd", weights, source.float())
        pooled = self.text_embedder(mean.to(dtype))
        own = self.timestep_embedder
        condition = pooled + (time_embedding if own is None else own(t))
        x = self.proj_in(normed)
        for block in self.refiner_blocks:
            x = block(x, mask, condition)
        return x, pooled, condition


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
    """DiT block: self-attention, cross-attention, FFN with nine adaLN vectors (figure 5)."""

    def __init__(self, config: Any):
        super().__init__()
        width = config.width
        self.norm = AdaLayerNormZero(width, 9)
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
        shift1, scale1, gate1, shift2, scale2, gate2, shift3, scale3, gate3 = self.norm(condition)
        h = modulated_norm(x, shift1, scale1)
        x = x + gate1 * self.attn1(h, h, rotary=rotary)
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
        self.norm_out = AdaLayerNormZero(width, 2)
        self.proj_out = nn.Linear(width, channels * config.patch**2)

    def refine(
        self,
        features: Sequence[Tensor],
        masks: Sequence[Tensor],
        t: Tensor,
        prefix_lengths: Sequence[int],
    ) -> tuple[list[tuple[Tensor, Tensor, Tensor]], Tensor, Tensor, Tensor]:
        """Return the refiners' outputs, context [B, S, D], its mask, the backbone's condition."""
        time = self.time_embedder(t)
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
        return refined, context, context_mask, time + sum(pooled for _, pooled, _ in refined)

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
        _, context, context_mask, condition = self.refine(features, masks, t, prefix_lengths)
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
            x = x + sincos_table(places, x.shape[-1]).to(x.dtype)
        if "rope" in self.config.position:
            rotary = rotary_table(places, x.shape[-1] // self.config.heads)
        for block in self.transformer_blocks:
            x = block(x, context, context_mask, condition, rotary)
        x = self.proj_out(modulated_norm(x, *self.norm_out(condition)))
        maps = x.transpose(1, 2).unflatten(-1, (rows, columns))
        return F.pixel_shuffle(maps, self.config.patch).movedim(1, -1).float()


def _axis_angles(places: Tensor, frequencies: int, base: float) -> Tensor:
    """Return angles [N, 2, frequencies] of (row, column) places [N, 2]."""
    exponents = torch.arange(frequencies, device=places.device) / frequencies
    return places.float()[..., None] / base**exponents


def sincos_table(places: Tensor, width: int) -> Tensor:
    """Return position embeddings [N, D]: sines and cosines of the row, then of the column."""
    angles = _axis_angles(places, width // 4, 1e4)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def rotary_table(places: Tensor, head_width: int) -> Rotary:
    """Return cosines and sines [N, K/2]: half of the pairs turn by the row, half by the column."""
    angles = _axis_angles(places, head_width // 4, ROTARY_BASE).flatten(1)
    return angles.cos(), angles.sin()
