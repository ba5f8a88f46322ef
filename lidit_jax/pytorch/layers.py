"""Layers of LI-DiT's network in plain PyTorch: attention, adaLN, embeddings and positions.

Letters of shapes as in `model.py`.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

EPSILON = 1e-6
SINUSOIDS = 256
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


class AdaLayerNormTable(nn.Module):
    """Learned table of `vectors` vectors, plus the condition, as adaLN vectors (PixArt)."""

    def __init__(self, width: int, vectors: int):
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.zeros(vectors, width))

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Return the adaLN vectors [B, 1, D] of a condition [B, D]."""
        vectors = self.scale_shift_table + condition.unsqueeze(1)
        return vectors.chunk(len(self.scale_shift_table), dim=1)


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Apply LayerNorm without learned parameters, then adaLN's scale and shift."""
    return F.layer_norm(x, x.shape[-1:], eps=EPSILON) * (1 + scale) + shift


class TimestepEmbedder(nn.Module):
    """Embedding of a number, such as a time in 0..1000: 256 sinusoids, cosines first, an MLP."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = FeedForward(SINUSOIDS, width, width, nn.SiLU())

    def forward(self, t: Tensor) -> Tensor:
        """Embed numbers t [B] as [B, D]."""
        half = SINUSOIDS // 2
        wave_numbers = [math.exp(-math.log(1e4) * k / half) for k in range(half)]
        angles = torch.outer(t.float(), torch.tensor(wave_numbers, device=t.device))
        sinusoids = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.mlp(sinusoids.to(self.mlp.linear_1.weight.dtype))


class SizeEmbedder(nn.Module):
    """Embedding of an image's size: of height, width and aspect ratio, side by side (PixArt-α)."""

    def __init__(self, width: int):
        super().__init__()
        self.resolution_embedder = TimestepEmbedder(width // 3)
        self.aspect_ratio_embedder = TimestepEmbedder(width // 3)

    def forward(self, height: int, width: int) -> Tensor:
        """Embed a size in pixels as [1, D]."""
        device = self.resolution_embedder.mlp.linear_1.weight.device
        sides = self.resolution_embedder(torch.tensor([height, width], device=device))
        ratio = self.aspect_ratio_embedder(torch.tensor([height / width], device=device))
        return torch.cat([sides, ratio]).reshape(1, -1)


def sincos_table(places: Tensor, width: int) -> Tensor:
    """Return position embeddings [N, D]: sines and cosines of one coordinate, then of the other."""
    angles = _axis_angles(places, width // 4, 1e4)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def rotary_table(places: Tensor, head_width: int) -> Rotary:
    """Return cosines and sines [N, K/2]: half of the pairs turn by the row, half by the column."""
    angles = _axis_angles(places, head_width // 4, ROTARY_BASE).flatten(1)
    return angles.cos(), angles.sin()


def _axis_angles(places: Tensor, frequencies: int, base: float) -> Tensor:
    """Return angles [N, 2, frequencies] of places [N, 2]."""
    exponents = torch.arange(frequencies, device=places.device) / frequencies
    return places.float()[..., None] / base**exponents
