"""FLOPs of LI-DiT, counted layer by layer, with two per multiply-add.

The estimate 6 x parameters x tokens does not apply, because image tokens, text tokens and samples
use different weights. Element-wise operations (norms, gates, activations, softmax) and the frozen
encoders are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lidit_jax.config.schema import ModelConfig, RefinerConfig
from lidit_jax.models.layers import TimeEmbedder


def token_shape(width: int, layers: int) -> tuple[int, ...]:
    """Return the shape of one token's features: (D,), or (n, D) for several layers.

    Args:
      width: width D of a layer's features.
      layers: number n of layers.
    """
    return (width,) if layers == 1 else (layers, width)


@dataclass(frozen=True)
class TextStream:
    """Sizes of one encoder's features."""

    width: int
    """Width D_k."""
    tokens: int
    """Padded number of tokens S_k, including the instruction."""
    prefix_length: int
    """Number of instruction tokens, which are dropped before the backbone."""
    layers: int = 1
    """Number n of the encoder's layers."""

    @property
    def token_shape(self) -> tuple[int, ...]:
        """Shape of one token's features: (D_k,), or (n, D_k) for several layers."""
        return token_shape(self.width, self.layers)

    def mixed_width(self, refiner: RefinerConfig) -> int:
        """Return the width of the features once their layers are combined."""
        return self.width * (self.layers if refiner.layer_mix == "concatenate" else 1)


@dataclass(frozen=True)
class ForwardFlops:
    """FLOPs of one forward pass per sample, by part."""

    blocks: float
    attention: float
    """Attention scores and weighted sums of the blocks."""
    refiners: float
    rest: float
    """Patches, positions, time and output."""

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return self.blocks + self.attention + self.refiners + self.rest

    @property
    def training(self) -> float:
        """FLOPs of one training step; the backward pass costs two forward passes."""
        return self.training_with(1.0)

    def training_with(self, trained: float) -> float:
        """Return the FLOPs of one training step in which weights are frozen.

        Args:
          trained: share of the products with weights whose weights get gradients.
        """
        return 3 * self.total - (1.0 - trained) * (self.total - self.attention)


def forward_flops(
    model: ModelConfig, tokens: int, channels: int, streams: Sequence[TextStream]
) -> ForwardFlops:
    """Count the FLOPs of one forward pass per sample.

    Args:
      model: the network.
      tokens: image tokens N.
      channels: latent channels C.
      streams: sizes of the text streams.
    """
    d, ratio, N = model.width, model.mlp_ratio, tokens
    context = sum(stream.tokens - stream.prefix_length for stream in streams)
    vectors = 9 if model.cross_attention == "modulated" else 6
    # Per image token: self-attention 4 d^2, cross-attention query and output 2, FFN 2 x ratio.
    block = (6 + 2 * ratio) * d**2 * N + 2 * d**2 * context + vectors * d**2
    patch = model.patch**2 * channels
    rest = 2 * patch * d * N + TimeEmbedder.frequencies * d + d**2
    if model.output_modulation == "linear":
        rest += 2 * d**2
    if "conv" in model.position:
        rest += 2 * 9 * d**2 * N
    if model.size_embedding:  # height, width and their ratio, once per batch
        rest += 3 * (TimeEmbedder.frequencies * (d // 3) + (d // 3) ** 2)
    refiners = sum(_refiner_macs(model, stream, streams) for stream in streams)
    return ForwardFlops(
        blocks=2.0 * model.depth * block,
        attention=4.0 * model.depth * (N * N + N * context) * d,
        refiners=2.0 * refiners,
        rest=2.0 * rest,
    )


def _refiner_macs(model: ModelConfig, stream: TextStream, streams: Sequence[TextStream]) -> float:
    """Count multiply-adds of one stream in the linguistic and the collaborative refiner."""
    d, refiner, S = model.width, model.refiner, stream.tokens
    others = sum(other.tokens for other in streams) - S
    linguistic = (4 + 2 * refiner.mlp_ratio) * d**2 * S + 2 * S * S * d
    linguistic += 2 * d**2 if refiner.gate else 0
    inputs = stream.mixed_width(refiner)
    count = inputs * d * S + refiner.blocks * linguistic
    if refiner.projection == "mlp":
        count += d**2 * S
    if refiner.pool != "none":
        count += inputs * d + d**2
    if refiner.own_time_embedder:
        count += TimeEmbedder.frequencies * d + d**2
    if others:
        collaborative = (2 + 2 * refiner.mlp_ratio) * d**2 * S + 2 * d**2 * others
        collaborative += 2 * S * others * d + 6 * d**2
        count += refiner.collaborative_blocks * collaborative
    return count
