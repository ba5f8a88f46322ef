"""Rotary position embedding (https://arxiv.org/abs/2104.09864), plain or stretched."""

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
    """Llama 3.1 stretches only the wavelengths that are long beside its first context."""

    low_frequency: float
    """Turns within the original context below which a wavelength is stretched."""
    high_frequency: float
    """Turns within the original context above which a wavelength is kept."""
    original_context: int
    """Context length, in tokens, of the first training."""

    def kept(
        self, frequencies: Float[np.ndarray, " half"], theta: float
    ) -> Float[np.ndarray, " half"]:
        """How much of each frequency, in radians a token, stays as it is: 0 to 1."""
        turns = self.original_context * frequencies / (2 * math.pi)
        kept = (turns - self.low_frequency) / (self.high_frequency - self.low_frequency)
        return np.clip(kept, 0.0, 1.0)


@dataclass(frozen=True)
class YarnScaling:
    """YaRN (https://arxiv.org/abs/2309.00071) stretches along a ramp over the channel pairs."""

    original_context: int
    """Context length, in tokens, of the first training."""
    fast: float = 32.0
    """Turns within the original context from which on a wavelength is kept."""
    slow: float = 1.0
    """Turns within the original context up to which a wavelength is stretched in full."""
    whole: bool = True
    """Whether the ramp begins and ends at a whole channel pair."""

    def kept(
        self, frequencies: Float[np.ndarray, " half"], theta: float
    ) -> Float[np.ndarray, " half"]:
        """How much of each frequency, in radians a token, stays as it is: 0 to 1."""
        width = 2 * len(frequencies)

        def pair(turns: float) -> float:
            """Where in the series of frequencies this many turns fill the original context."""
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
    """Frequencies of the rotation."""

    theta: float
    """Base of the geometric series of wavelengths."""
    factor: float = 1.0
    """How far wavelengths are stretched; 1 for plain RoPE."""
    only: Llama3Scaling | YarnScaling | None = None
    """Which wavelengths are stretched; None for all of them (linear scaling)."""
    amplitude: float = 1.0
    """YaRN: what turned queries and keys are multiplied by."""

    @classmethod
    def from_huggingface(cls, config: dict) -> Rope:
        """Reads `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (4).

        Raises:
          LiditError: for a scaling rule other than linear, Llama 3.1's and YaRN, and for heads that
            turn only in part.
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
        """Radians a token, in float64, for each pair of channels of a head of `width` channels."""
        frequencies = self.theta ** -(np.arange(0, width, 2) / width)
        kept = 0.0 if self.only is None else self.only.kept(frequencies, self.theta)
        return frequencies * (kept + (1 - kept) / self.factor)


def _factor(value: float) -> float:
    """The stretch of wavelengths, checked."""
    if not value > 0:
        raise LiditError(f"a RoPE scaling factor of {value} is not supported: it must be above 0")
    return float(value)


def _amplitude(rope: dict, factor: float) -> float:
    """YaRN's factor of queries and keys: as given, or grown with the logarithm of the stretch."""

    def grown(rate: float) -> float:
        return 0.1 * rate * math.log(max(factor, 1.0)) + 1.0

    if (given := rope.get("attention_factor")) is not None:
        return float(given)
    rate, of_all = rope.get("mscale"), rope.get("mscale_all_dim")
    return grown(rate) / grown(of_all) if rate and of_all else grown(1.0)


def rotation(
    rope: Rope, positions: Int32[Array, "B S"], width: int, length: int
) -> tuple[Float[Array, "B S 1 half"], Float[Array, "B S 1 half"]]:
    """Cosine and sine of every token's angles, in float32.

    They are looked up in tables made in float64: angles of float32 would be off by a ten-thousandth
    after some thousand tokens.

    Args:
      rope: the frequencies.
      positions: of the tokens, all of them below `length`.
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
    """Turns channel i against channel i + K/2, the pairing of Hugging Face checkpoints."""
    first, second = jnp.split(x.astype(at_least_float32(x.dtype)), 2, axis=-1)
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
