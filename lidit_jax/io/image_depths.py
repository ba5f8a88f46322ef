"""Conversion of images with more than 8 bits per channel to 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_BITS, _WHITE_IS_ZERO, _SIGNED = 258, 262, 339
"""TIFF tags BitsPerSample, PhotometricInterpretation and SampleFormat."""


def is_deep(image: Image.Image) -> bool:
    """Return whether an image has more than 8 bits per channel, which Pillow would clip."""
    return image.mode in _DEEP


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale a gray image to 8 bits, so that the largest value of its file format becomes 255.

    The largest integer is 65535, or less if a TIFF declares fewer bits; the largest floating-point
    value is 1. Images of 8 bits are returned unchanged.

    Args:
      image: as opened from its file, whose header defines the value range.

    Returns:
      An image of mode "L", or "LA" if one shade is transparent.

    Raises:
      ValueError: when values are outside that range, so that white is undefined.
    """
    if not is_deep(image):
        return image
    values, white = np.asarray(image).astype(np.float64), _white(image)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= white):
        raise ValueError(
            f"its values range from {low:g} to {high:g}, while black is 0 and white is {white:g}; "
            "save it with 8 or 16 bits per channel"
        )
    shades = np.floor(values * (255 / white) + 0.5).astype(np.uint8)
    if _tags(image).get(_WHITE_IS_ZERO) == 0:
        shades = 255 - shades
    result = Image.fromarray(shades)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        result.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    result.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return result


def _white(image: Image.Image) -> float:
    if image.mode == "F":
        return 1.0
    tags = _tags(image)
    bits = min(int(tags.get(_BITS, (16,))[0]), 16)
    signed = tags.get(_SIGNED, (1,))[0] == 2 and bits == tags.get(_BITS, (16,))[0]
    return float(2 ** (bits - signed) - 1)


def _tags(image: Image.Image) -> Mapping[int, Any]:
    return getattr(image, "tag_v2", {})  # of any type: numbers, texts, tuples
