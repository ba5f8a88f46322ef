"""Random crops and flips of images, keyed by record and pass."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lidit_jax.config.data_settings import AugmentationSettings
from lidit_jax.data.keyed_random import keyed_share, subkey
from lidit_jax.io.image_crops import CENTER


class Augmentation(NamedTuple):
    """Augmentation of the images of a batch."""

    places: Float64[np.ndarray, "b 2"]
    """Position of each crop, down and to the right, from 0 to 1, see
    `lidit_jax.io.image_crops`."""
    flipped: Bool[np.ndarray, " b"]
    """Which images are mirrored, after cropping."""


def draw_augmentation(
    seed: int,
    records: Int64[np.ndarray, " b"],
    passes: Int64[np.ndarray, " b"],
    settings: AugmentationSettings,
) -> Augmentation:
    """Draw crops and flips; by default crops are centered and nothing is mirrored.

    Args:
      seed: seed of the run.
      records: record numbers.
      passes: number of the pass, per record.
      settings: kinds of augmentation.
    """

    def share(use: str) -> Float64[np.ndarray, " b"]:
        return keyed_share(subkey(seed, use), records, passes)

    if settings.random_crop:
        places = np.stack([share("crop down"), share("crop right")], axis=1)
    else:
        places = np.tile(np.array(CENTER), (len(records), 1))
    return Augmentation(places, share("flip") < settings.flip)
