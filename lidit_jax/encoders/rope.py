"""Rotary position embedding (https://arxiv.org/abs/2104.09864), with context scaling rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
class DynamicScaling:
    """Dynamic NTK scaling: texts beyond the context of pretraining raise the base."""

    context: int
    """Context length of pretraining, in tokens."""
    factor: float
    """Growth of the stretch per context length."""

    def scaled(
        self, frequencies: Float[np.ndarray, " half"], length: int
    ) -> Float[np.ndarray, " half"]:
        """Return frequencies in radians per token for a text of `length` tokens."""
        grown = self.factor * max(length, self.context) / self.context - (self.factor - 1)
        pairs = len(frequencies)
        return frequencies * grown ** -(np.arange(pairs) / max(pairs - 1, 1))


@dataclass(frozen=True)
class LongScaling:
    """LongRoPE (https://arxiv.org/abs/2402.13753): a factor for each channel pair, and others for
    texts beyond the context of pretraining."""

    context: int
    """Context length of pretraining, in tokens."""
    short: tuple[float, ...]
    """Factors on the wavelengths of texts of up to `context` tokens."""
    long: tuple[float, ...]
    """Factors on the wavelengths of longer texts."""

    def scaled(
        self, frequencies: Float[np.ndarray, " half"], length: int
    ) -> Float[np.ndarray, " half"]:
        """Return frequencies in radians per token for a text of `length` tokens."""
        return frequencies / np.asarray(self.long if length > self.context else self.short)


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
    """YaRN and LongRoPE: factor on rotated queries and keys."""
    by_length: DynamicScaling | LongScaling | None = None
    """Scaling that depends on the number of tokens of a text; None for none."""
    partial: float = 1.0
    """Share of a head's channels that are rotated, the first ones; the others stay."""

    @classmethod
    def from_huggingface(cls, config: dict, *, partial: bool = False) -> Rope:
        """Read `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (4).

        Args:
          config: the content of a `config.json`.
          partial: whether the family follows `partial_rotary_factor`.

        Raises:
          LiditError: for an unknown scaling rule, and for a partial rotary embedding in a family
            that has none.
        """
        rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
        if any(isinstance(value, dict) for value in rope.values()):
            raise LiditError(
                "rope_parameters that differ between kinds of attention are not supported: use a "
                "model with one RoPE, or a Gemma 3"
            )
        share = rope.get("partial_rotary_factor", config.get("partial_rotary_factor"))
        share = 1.0 if share is None else share
        if not 0 < share <= 1 or (share != 1 and not partial):
            raise LiditError(
                f"partial_rotary_factor={share} is not supported: use a model whose RoPE turns "
                "whole heads, or a Phi-3 or later"
            )
        theta = float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in _RULES:
            raise LiditError(
                f"RoPE scaling {kind!r} is not supported: use a model with {', '.join(_RULES)} RoPE"
            )
        try:
            return cls(theta, partial=float(share), **_RULES[kind](rope, config))
        except KeyError as error:
            raise LiditError(f"RoPE scaling {kind!r} lacks {error}: download it again") from error

    def frequencies(self, width: int, length: int = 1) -> Float[np.ndarray, " half"]:
        """Return radians per token, float64, of each rotated channel pair.

        Args:
          width: channels of a head.
          length: tokens of the text.

        Raises:
          LiditError: when LongRoPE has a factor too many or too few.
        """
        turned = int(width * self.partial)
        frequencies = self.theta ** -(np.arange(0, turned, 2) / turned)
        kept = 0.0 if self.only is None else self.only.kept(frequencies, self.theta)
        frequencies = frequencies * (kept + (1 - kept) / self.factor)
        if self.by_length is None:
            return frequencies
        if isinstance(self.by_length, LongScaling):
            for factors in (self.by_length.short, self.by_length.long):
                if len(factors) != len(frequencies):
                    raise LiditError(
                        f"RoPE scaling 'longrope' has {len(factors)} factors for "
                        f"{len(frequencies)} channel pairs: download config.json again"
                    )
        return self.by_length.scaled(frequencies, length)

    def varies(self, length: int) -> bool:
        """Return whether texts of up to `length` tokens differ in their frequencies."""
        rule = self.by_length
        if rule is None or (isinstance(rule, LongScaling) and rule.short == rule.long):
            return False
        return length > rule.context


def _factor(value: float) -> float:
    """Return the RoPE scaling factor after checking that it is positive."""
    if not value > 0:
        raise LiditError(f"a RoPE scaling factor of {value} is not supported: it must be above 0")
    return float(value)


def _yarn_amplitude(rope: dict, factor: float) -> float:
    """Return YaRN's factor on queries and keys: as given, or derived from log(factor)."""

    def grown(rate: float) -> float:
        return 0.1 * rate * math.log(max(factor, 1.0)) + 1.0

    if (given := rope.get("attention_factor")) is not None:
        return float(given)
    rate, of_all = rope.get("mscale"), rope.get("mscale_all_dim")
    return grown(rate) / grown(of_all) if rate and of_all else grown(1.0)


def _context(rope: dict, config: dict) -> int:
    """Return the context length of pretraining; a field beside the RoPE's goes before its own."""
    for place in (config, rope):
        if (context := place.get("original_max_position_embeddings")) is not None:
            return context
    return config["max_position_embeddings"]


def _stretch(rope: dict, config: dict, context: int) -> float:
    """Return the scaling factor: as given, or the ratio of the two context lengths."""
    factor = rope.get("factor")
    return _factor(config["max_position_embeddings"] / context if factor is None else factor)


def _plain(rope: dict, config: dict) -> dict[str, Any]:
    return {}


def _linear(rope: dict, config: dict) -> dict[str, Any]:
    return {"factor": _factor(rope["factor"])}


def _llama3(rope: dict, config: dict) -> dict[str, Any]:
    ends = rope["low_freq_factor"], rope["high_freq_factor"]
    return _linear(rope, config) | {"only": Llama3Scaling(*ends, _context(rope, config))}


def _yarn(rope: dict, config: dict) -> dict[str, Any]:
    context = _context(rope, config)
    ramp = YarnScaling(
        context,
        rope.get("beta_fast") or YarnScaling.fast,
        rope.get("beta_slow") or YarnScaling.slow,
        rope.get("truncate", True),
    )
    factor = _stretch(rope, config, context)
    return {"factor": factor, "only": ramp, "amplitude": _yarn_amplitude(rope, factor)}


def _dynamic(rope: dict, config: dict) -> dict[str, Any]:
    return {"by_length": DynamicScaling(config["max_position_embeddings"], _factor(rope["factor"]))}


def _longrope(rope: dict, config: dict) -> dict[str, Any]:
    context = _context(rope, config)
    short, long = (
        tuple(_factor(factor) for factor in rope[name]) for name in ("short_factor", "long_factor")
    )
    amplitude = rope.get("attention_factor")
    if amplitude is None:
        factor = max(_stretch(rope, config, context), 1.0)
        amplitude = math.sqrt(1 + math.log(factor) / math.log(context)) if factor > 1 else 1.0
    return {"amplitude": float(amplitude), "by_length": LongScaling(context, short, long)}


_RULES: dict[str, Callable[[dict, dict], dict[str, Any]]] = {
    "default": _plain,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "dynamic": _dynamic,
    "longrope": _longrope,
}
"""Readers of the scaling rules, by `rope_type`: from the RoPE's fields and the whole configuration
to fields of `Rope`."""


def rotation(
    rope: Rope, positions: Int32[Array, "B S"], width: int, length: int
) -> tuple[Float[Array, "B S 1 half"], Float[Array, "B S 1 half"]]:
    """Return the cosine and sine of every token's angles, float32.

    They are looked up in tables computed in float64: float32 angles would be off by 1e-4 after a
    few thousand tokens. Where the frequencies depend on a text's number of tokens, each row has
    those of its own, as if it were alone in the batch, and its angles are float32 as in
    transformers.

    Args:
      rope: the frequencies.
      positions: positions of the tokens, all below `length`.
      width: channels of a head.
      length: rows of the tables.
    """
    if rope.by_length is not None and rope.varies(length):
        first = rope.by_length.context
        table = np.stack([rope.frequencies(width, n) for n in range(first, length + 1)])
        tokens = positions.max(axis=1) + 1
        per_row = jnp.asarray(table)[jnp.maximum(tokens - first, 0)]
        angles = positions[..., None, None] * per_row[:, None, None]
        cosine, sine = (
            (rope.amplitude * wave(angles)).astype(jnp.float32) for wave in (jnp.cos, jnp.sin)
        )
        return cosine, sine
    angles = np.arange(length)[:, None, None] * rope.frequencies(width)
    cosine, sine = (
        jnp.asarray(rope.amplitude * wave(angles), jnp.float32)[positions]
        for wave in (np.cos, np.sin)
    )
    return cosine, sine


def rotate(
    x: Float[Array, "B S H K"], cosine: Float[Array, "B S 1 half"], sine: Float[Array, "B S 1 half"]
) -> Float[Array, "B S H K"]:
    """Rotate the channel pairs (i, i + half), as in Hugging Face checkpoints.

    Channels from 2 * half on stay as they are (partial rotary embedding).
    """
    half = cosine.shape[-1]
    wide = x.astype(at_least_float32(x.dtype))
    first, second, rest = jnp.split(wide, (half, 2 * half), axis=-1)
    turned = (first * cosine - second * sine, second * cosine + first * sine, rest)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
