"""The picture that an image begins from, instead of from noise alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from lidit_jax.errors import LiditError

_STRENGTH = 0.6


class Start(NamedTuple):
    """Images to begin from."""

    images: UInt8[np.ndarray, "B H W 3"]
    strength: float
    """Share of the steps to take: the more, the less is left of the image."""
    mask: Bool[np.ndarray, "B H W"] | None = None
    """True where to paint anew; everything else stays."""

    def rows(self, rows: list[int]) -> Start:
        """Those of a part of the batch."""
        return Start(
            self.images[rows], self.strength, None if self.mask is None else self.mask[rows]
        )


def start_from(
    image: UInt8[np.ndarray, "H W 3"] | UInt8[np.ndarray, "B H W 3"] | None,
    mask: Bool[np.ndarray, "H W"] | None,
    strength: float | None,
    count: int,
) -> Start | None:
    """What a batch of images begins from; None for noise.

    Args:
      image: one for all, or one each.
      mask: likewise.
      strength: above 0 to 1; None for 0.6, with a mask 1.
      count: B.

    Raises:
      LiditError: for an image, a mask or a strength that does not fit.
    """
    if image is None:
        if mask is not None or strength is not None:
            raise LiditError("mask and strength are for an image to begin from: give image")
        return None
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (3, 4) or image.shape[-1] != 3:
        raise LiditError(
            f"image is {image.dtype} {list(image.shape)}: it must be uint8 [H, W, 3], or one "
            "such image a prompt"
        )
    images = np.broadcast_to(image, (count, *image.shape[-3:]))
    if mask is not None:
        mask = np.asarray(mask, bool)
        if mask.shape[-2:] != images.shape[1:3]:
            raise LiditError(
                f"mask is {mask.shape} and the image {images.shape[1:3]}: resize the mask"
            )
        mask = np.broadcast_to(mask, images.shape[:3])
    strength = (_STRENGTH if mask is None else 1.0) if strength is None else strength
    if not 0 < strength <= 1:
        raise LiditError(f"strength {strength}: must be greater than 0 and at most 1")
    return Start(images, strength, mask)
