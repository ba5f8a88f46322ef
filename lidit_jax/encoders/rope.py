"""Rotary position embedding (https://arxiv.org/abs/2104.09864), plain or stretched."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from lidit_jax.encoders.blocks import wide
from lidit_jax.errors import LiditError


@dataclass(frozen=True)
class LongWaves:
    """Llama 3.1 stretches only the wavelengths that are long beside its first context."""

    low_frequency: float
    """Turns within the original context below which a wavelength is stretched."""
    high_frequency: float
    """Turns within the original context above which a wavelength is kept."""
    original_context: int
    """Context length, in tokens, of the first training."""

    def kept(self, frequencies: Float[np.ndarray, " half"]) -> Float[np.ndarray, " half"]:
        """How much of each frequency, in radians a token, stays as it is: 0 to 1."""
        turns = self.original_context * frequencies / (2 * math.pi)
        kept = (turns - self.low_frequency) / (self.high_frequency - self.low_frequency)
        return np.clip(kept, 0.0, 1.0)


@dataclass(frozen=True)
class Rope:
    """Frequencies of the rotation."""

    theta: float
    """Base of the geometric series of wavelengths."""
    factor: float = 1.0
    """How far wavelengths are stretched; 1 for plain RoPE."""
    only: LongWaves | None = None
    """Which wavelengths are stretched; None for all of them (linear scaling)."""

    @classmethod
    def from_huggingface(cls, config: dict) -> Rope:
        """Reads `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (4).

        Raises:
          LiditError: for a scaling rule other than linear and Llama 3.1's, and for heads that turn
            only in part.
        """
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) != 1.0:
            raise LiditError(
                "partial_rotary_factor is not supported: use a model whose RoPE turns whole heads"
            )
        theta = float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind == "default":
            return cls(theta)
        if kind == "linear":
            return cls(theta, rope["factor"])
        if kind == "llama3":
            waves = LongWaves(
                rope["low_freq_factor"],
                rope["high_freq_factor"],
                rope["original_max_position_embeddings"],
            )
            return cls(theta, rope["factor"], waves)
        raise LiditError(
            f"RoPE scaling {kind!r} is not supported: use a model with plain, linear or llama3 RoPE"
        )

    def frequencies(self, width: int) -> Float[np.ndarray, " half"]:
        """Radians a token for each pair of channels of a head of `width` channels."""
        frequencies = 1.0 / self.theta ** (np.arange(0, width, 2, dtype=np.float32) / width)
        kept = 0.0 if self.only is None else self.only.kept(frequencies)
        return (frequencies * (kept + (1 - kept) / self.factor)).astype(np.float32)


def rotation(
    rope: Rope, positions: Int32[Array, "B S"], width: int
) -> tuple[Float[Array, "B S 1 half"], Float[Array, "B S 1 half"]]:
    """Cosine and sine of every token's angles, in float32."""
    angles = positions[..., None, None].astype(jnp.float32) * rope.frequencies(width)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "B S H K"], cosine: Float[Array, "B S 1 half"], sine: Float[Array, "B S 1 half"]
) -> Float[Array, "B S H K"]:
    """Turns channel i against channel i + K/2, the pairing of Hugging Face checkpoints."""
    first, second = jnp.split(x.astype(wide(x.dtype)), 2, axis=-1)
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
