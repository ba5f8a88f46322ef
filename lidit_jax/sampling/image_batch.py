"""Inputs for sampling a batch of images, with encoded prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from lidit_jax.config.schema import SamplingConfig
from lidit_jax.encoders.conditions import TextConditions
from lidit_jax.models.lidit import LIDiT
from lidit_jax.sampling.init_image import InitImage


class Blend(NamedTuple):
    """Second prompts to blend with."""

    conditions: TextConditions
    weight: Float[Array | np.ndarray, " B"]
    """Weight per image: 0 for the first prompt, 1 for the second."""


class Variation(NamedTuple):
    """Second noise to interpolate toward."""

    seeds: Sequence[int]
    amount: Float[np.ndarray, " B"]
    """Weight per image: 0 for the image's own noise, 1 for that of `seeds`."""


class GuideModel(NamedTuple):
    """Weaker network for autoguidance: guidance extrapolates away from its prediction."""

    model: LIDiT
    params: Any


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """Inputs of B images; with the weights they determine every pixel."""

    conditions: TextConditions
    """Conditions of the prompts."""
    unconditional: TextConditions
    """Conditions of the empty prompt, batch 1, or of B negative prompts."""
    seeds: Sequence[int]
    """One seed per image."""
    size: tuple[int, int]
    """Height and width in pixels."""
    settings: SamplingConfig
    guidance: float | Sequence[float] | Float[np.ndarray, " B"] | None = None
    """Guidance scale, or one per image; None for that of the settings."""
    blend: Blend | None = None
    variation: Variation | None = None
    init: InitImage | None = None
    """Initial images; None for noise alone."""
    guide: GuideModel | None = None
    """Weaker network for autoguidance; `unconditional` and `blend` are then unused."""
