"""What a batch of images is drawn from, prompts already encoded."""

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
    """Second prompts."""

    conditions: TextConditions
    weight: Float[Array | np.ndarray, " B"]
    """0 for the first prompt, 1 for the second."""


class Variation(NamedTuple):
    """Noise to turn towards."""

    seeds: Sequence[int]
    amount: Float[np.ndarray, " B"]
    """0 for the image's own noise, 1 for that of `seeds`."""


class GuideModel(NamedTuple):
    """A weaker network for autoguidance: guidance moves away from what it predicts."""

    model: LIDiT
    params: Any


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """B images to draw in one go. With the weights it decides every pixel."""

    conditions: TextConditions
    """Of the prompts."""
    unconditional: TextConditions
    """Of the empty prompt, batch 1, or of B negative prompts."""
    seeds: Sequence[int]
    """One an image."""
    size: tuple[int, int]
    """Height and width in pixels."""
    settings: SamplingConfig
    guidance: float | Sequence[float] | Float[np.ndarray, " B"] | None = None
    """Guidance scale, or one an image; None for that of the settings."""
    blend: Blend | None = None
    variation: Variation | None = None
    init: InitImage | None = None
    """Images to begin from; None for noise alone."""
    guide: GuideModel | None = None
    """With it, `unconditional` and `blend` are not used."""
