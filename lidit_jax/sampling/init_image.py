"""Initial images for image-to-image sampling and inpainting."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from lidit_jax.errors import LiditError
from lidit_jax.sampling.values import number

_STRENGTH = 0.6


class InitImage(NamedTuple):
    """B initial images with strength and mask."""

    images: UInt8[np.ndarray, "B H W 3"]
    strength: float
    """Share of the steps to run; at 1 nothing is left of the image."""
    mask: Bool[np.ndarray, "B H W"] | None = None
    """True where to repaint; other pixels are kept."""

    def rows(self, rows: list[int]) -> InitImage:
        """Select rows of the batch."""
        mask = None if self.mask is None else self.mask[rows]
        return InitImage(self.images[rows], self.strength, mask)


def default_strength(masked: bool) -> float:
    """Return the default strength: 1 with a mask, whose area is repainted in full."""
    return 1.0 if masked else _STRENGTH


def init_image(
    image: UInt8[np.ndarray, "H W 3"] | UInt8[np.ndarray, "B H W 3"] | None,
    mask: Bool[np.ndarray, "H W"] | Bool[np.ndarray, "B H W"] | None,
    strength: float | np.floating | None,
    count: int,
) -> InitImage | None:
    """Validate the initial images of a batch; return None for noise.

    Args:
      image: one for all, or one per image.
      mask: likewise.
      strength: above 0 to 1; None for 0.6, with a mask 1.
      count: number of images B.

    Raises:
      LiditError: for an image, a mask or a strength that does not fit.
    """
    if image is None:
        if mask is not None or strength is not None:
            raise LiditError("mask and strength need an initial image: give image")
        return None
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (3, 4) or image.shape[-1] != 3:
        raise LiditError(
            f"image is {image.dtype} {list(image.shape)}: it must be uint8 [H, W, 3], or one "
            "such image per prompt"
        )
    images = _one_each("image", image, image.shape[-3:], count)
    if mask is not None:
        mask = np.asarray(mask, bool)
        if mask.ndim not in (2, 3) or mask.shape[-2:] != images.shape[1:3]:
            raise LiditError(
                f"mask is {mask.shape} and the image {images.shape[1:3]}: resize the mask"
            )
        mask = _one_each("mask", mask, mask.shape[-2:], count)
    strength = default_strength(mask is not None) if strength is None else strength
    strength = number("strength", strength)
    if not 0 < strength <= 1:
        raise LiditError(f"strength {strength}: must be greater than 0 and at most 1")
    return InitImage(images, strength, mask)


def _one_each(name: str, array: np.ndarray, shape: tuple[int, ...], count: int) -> np.ndarray:
    """Broadcast one array to `count` images, or check that there is one per image."""
    if array.ndim > len(shape) and len(array) not in (1, count):
        raise LiditError(f"{len(array)} of {name} for {count} prompts: give one, or one per prompt")
    return np.broadcast_to(array, (count, *shape))
