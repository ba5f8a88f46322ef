"""Made-up training data of real shapes, with NumPy alone, so that every contender sees the same."""

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from lidit_jax.config import Config


@dataclass(frozen=True)
class Stream:
    """Sizes of one encoder's features."""

    width: int
    """Width D_k."""
    tokens: int
    """Tokens S_k that batches are padded to, instruction included."""
    crop: int
    """Instruction tokens."""


def latent_shape(config: Config) -> tuple[int, int, int]:
    """Rows, columns and channels of one training example."""
    if config.vae.source == "pixels":
        return config.data.image_size, config.data.image_size, 3
    side = config.data.image_size // config.vae.downsample
    return side, side, config.vae.channels


def make_batch(
    config: Config, streams: list[Stream], batch_size: int, seed: int = 0
) -> dict[str, Any]:
    """What `LatentRecords` would give: float32 latents, bfloat16 features, masks, indices.

    Prompts have 5 tokens or more after the instruction.
    """
    rng = np.random.default_rng(seed)
    features, masks = [], []
    for stream in streams:
        lengths = rng.integers(stream.crop + 5, stream.tokens + 1, size=(batch_size, 1))
        masks.append(np.arange(stream.tokens) < lengths)
        values = rng.normal(size=(batch_size, stream.tokens, stream.width))
        features.append((values * masks[-1][..., None]).astype(ml_dtypes.bfloat16))
    return {
        "latent": rng.normal(size=(batch_size, *latent_shape(config))).astype(np.float32),
        "features": tuple(features),
        "masks": tuple(masks),
        "index": np.arange(batch_size, dtype=np.int32),
    }


def empty_prompt(streams: list[Stream], seed: int = 1) -> dict[str, Any]:
    """Features [1, S_k, D_k] and masks of the instruction with nothing after it but its end."""
    rng = np.random.default_rng(seed)
    return {
        "features": tuple(
            rng.normal(size=(1, s.tokens, s.width)).astype(ml_dtypes.bfloat16) for s in streams
        ),
        "masks": tuple(np.arange(s.tokens)[None] < s.crop + 1 for s in streams),
    }
