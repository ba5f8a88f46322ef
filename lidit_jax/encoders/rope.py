"""Rotary position embedding (https://arxiv.org/abs/2104.09864), with context scaling rules."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from lidit_jax.encoders.blocks import at_least_float32
from lidit_jax.errors import LiditError


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1 scaling, which stretches only wavelengths long relative to the context."""

    low_frequency: float
    """Rotations per original context below which a wavelength is stretched."""
    high_frequency: float
    """Rotations per original context above which a wavelength is kept."""
    original_context: int
    """Context length of pretraining, in tokens."""

    def kept(
        self, frequencies: Float[np.ndarray, " half"], theta: float
    ) -> Float[np.ndarray, " half"]:
        """Return the unscaled share, 0 to 1, of each frequency in radians per token."""
        turns = self.original_context * frequencies / (2 * math.pi)
        kept = (turns - self.low_frequency) / (self.high_frequency - self.low_frequency)
        return np.clip(kept, 0.0, 1.0)


@dataclass(frozen=True)
class YarnScaling:
    """YaRN scaling (https://arxiv.org/abs/2309.00071): a linear ramp over the channel pairs."""

    original_context: int
    """Context length of pretraining, in tokens."""
    fast: float = 32.0
    """Rotations per original context from which a wavelength is kept."""
    slow: float = 1.0
    """Rotations per original context up to which a wavelength is fully stretched."""
    whole: bool = True
    """Whether the ends of the ramp are rounded to whole channel pairs."""

    def kept(
        self, frequencies: Float[np.ndarray, " half"], theta: float
    ) -> Float[np.ndarray, " half"]:
        """Return the unscaled share, 0 to 1, of each frequency in radians per token."""
        width = 2 * len(frequencies)

        def pair(turns: float) -> float:
            """Return the (fractional) index of the channel pair with `turns` rotations."""
            wavelength = self.original_context / (2 * math.pi * turns)
            return width * math.log(wavelength) / (2 * math.log(theta))

        first, last = pair(self.fast), pair(self.slow)
        if self.whole:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, width - 1)
        length = last - first or 0.001
        return 1.0 - np.clip((np.arange(len(frequencies)) - first) / length, 0.0, 1.0)


@dataclass(frozen=True)
class Rope:
    """RoPE parameters."""

    theta: float
    """Base of the geometric series of wavelengths."""
    factor: float = 1.0
    """Factor by which wavelengths are stretched; 1 for plain RoPE."""
    only: Llama3Scaling | YarnScaling | None = None
    """Which wavelengths are stretched; None for all of them (linear scaling)."""
    amplitude: float = 1.0
    """YaRN: factor on rotated queries and keys."""

    @classmethod
    def from_huggingface(cls, config: dict) -> Rope:
        """Read `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (4).

        Raises:
          LiditError: for a scaling rule other than linear, Llama 3.1's and YaRN, and for partial
            rotary embedding.
        """
        rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
        if any(isinstance(value, dict) for value in rope.values()):
            raise LiditError(
                "rope_parameters that differ between kinds of attention are not supported: use a "
                "model with one RoPE, or a Gemma 3"
            )
        partial = rope.get("partial_rotary_factor", config.get("partial_rotary_factor"))
        if partial not in (None, 1.0):
            raise LiditError(
                f"partial_rotary_factor={partial} is not supported: use a model whose RoPE turns "
                "whole heads"
            )
        theta = float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind == "default":
            return cls(theta)
        if kind == "linear":
            return cls(theta, _factor(rope["factor"]))
        if kind not in ("llama3", "yarn"):
            raise LiditError(
                f"RoPE scaling {kind!r} is not supported: use a model with plain, linear, llama3 "
                "or yarn RoPE"
            )
        context = rope.get("original_max_position_embeddings")
        context = config["max_position_embeddings"] if context is None else context
        if kind == "llama3":
            waves = Llama3Scaling(rope["low_freq_factor"], rope["high_freq_factor"], context)
            return cls(theta, _factor(rope["factor"]), waves)
        factor = rope.get("factor")
        factor = _factor(config["max_position_embeddings"] / context if factor is None else factor)
        ramp = YarnScaling(
            context,
            rope.get("beta_fast") or YarnScaling.fast,
            rope.get("beta_slow") or YarnScaling.slow,
            rope.get("truncate", True),
        )
        return cls(theta, factor, ramp, _amplitude(rope, factor))

    def frequencies(self, width: int) -> Float[np.ndarray, " half"]:
        """Return radians per token, float64, of each channel pair in a head of `width` channels."""
        frequencies = self.theta ** -(np.arange(0, width, 2) / width)
        kept = 0.0 if self.only is None else self.only.kept(frequencies, self.theta)
        return frequencies * (kept + (1 - kept) / self.factor)


def _factor(value: float) -> float:
    """Return the RoPE scaling factor after checking that it is positive."""
    if not value > 0:
        raise LiditError(f"a RoPE scaling factor of {value} is not supported: it must be above 0")
    return float(value)


def _amplitude(rope: dict, factor: float) -> float:
    """Return YaRN's factor on queries and keys: as given, or derived from log(factor)."""

    def grown(rate: float) -> float:
        return 0.1 * rate * math.log(max(factor, 1.0)) + 1.0

    if (given := rope.get("attention_factor")) is not None:
        return float(given)
    rate, of_all = rope.get("mscale"), rope.get("mscale_all_dim")
    return grown(rate) / grown(of_all) if rate and of_all else grown(1.0)


def rotation(
    rope: Rope, positions: Int32[Array, "B S"], width: int, length: int
) -> tuple[Float[Array, "B S 1 half"], Float[Array, "B S 1 half"]]:
    """Return the cosine and sine of every token's angles, float32.

    They are looked up in tables computed in float64: float32 angles would be off by 1e-4 after a
    few thousand tokens.

    Args:
      rope: the frequencies.
      positions: positions of the tokens, all below `length`.
      width: channels of a head.
      length: rows of the tables.
    """
    angles = np.arange(length)[:, None, None] * rope.frequencies(width)
    cosine, sine = (
        jnp.asarray(rope.amplitude * wave(angles), jnp.float32)[positions]
        for wave in (np.cos, np.sin)
    )
    return cosine, sine


def rotate(
    x: Float[Array, "B S H K"], cosine: Float[Array, "B S 1 half"], sine: Float[Array, "B S 1 half"]
) -> Float[Array, "B S H K"]:
    """Rotate the channel pairs (i, i + K/2), as in Hugging Face checkpoints."""
    first, second = jnp.split(x.astype(at_least_float32(x.dtype)), 2, axis=-1)
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
