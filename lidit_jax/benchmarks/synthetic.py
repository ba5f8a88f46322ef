"""Random batches in NumPy with realistic shapes, identical for JAX and PyTorch."""

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from lidit_jax.config.schema import Config
from lidit_jax.models.flops import TextStream


def make_batch(
    config: Config, streams: Sequence[TextStream], batch_size: int, seed: int = 0
) -> dict[str, Any]:
    """Return a training batch: normalized float32 latents, bfloat16 features, masks, indices.

    Prompts have at least 5 tokens after the instruction.
    """
    rng = np.random.default_rng(seed)
    features, masks = [], []
    for stream in streams:
        lengths = rng.integers(stream.prefix_length + 5, stream.tokens + 1, size=(batch_size, 1))
        masks.append(np.arange(stream.tokens) < lengths)
        shape = (batch_size, stream.tokens, *stream.token_shape)
        values = rng.standard_normal(shape, dtype=np.float32)
        values[~masks[-1]] = 0
        features.append(values.astype(ml_dtypes.bfloat16))
    return {
        "latent": rng.standard_normal((batch_size, *config.latent_shape), dtype=np.float32),
        "features": tuple(features),
        "masks": tuple(masks),
        "index": np.arange(batch_size, dtype=np.int32),
    }


def empty_prompt(streams: Sequence[TextStream], seed: int = 1) -> dict[str, Any]:
    """Return features [1, S_k, D_k] and masks of the empty prompt: instruction and end token."""
    rng = np.random.default_rng(seed)
    return {
        "features": tuple(
            rng.normal(size=(1, s.tokens, *s.token_shape)).astype(ml_dtypes.bfloat16)
            for s in streams
        ),
        "masks": tuple(np.arange(s.tokens)[None] < s.prefix_length + 1 for s in streams),
    }
