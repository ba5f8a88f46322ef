"""Sizes of images in pixels: which ones a model can draw, and which it was trained for."""

from __future__ import annotations

import math
from typing import Any

from lidit_jax.errors import LiditError
from lidit_jax.sampling.values import as_integer, as_list, is_single

_FAR = 2.0
"""Times the side of training from which a size is called far: shapes repeat from about there."""


def height_and_width(size: Any) -> tuple[int, int]:
    """A size from a side, or from (height, width). Raises `LiditError` for anything else."""
    sides = [size, size] if is_single(size) else size
    sides = as_list("size", sides, as_integer)
    if len(sides) != 2:
        raise LiditError(f"size={size!r}: must be a side, or (height, width), in pixels")
    return sides[0], sides[1]


def check_size(size: tuple[int, int], step: int) -> None:
    """Raises `LiditError` unless both sides, in pixels, are multiples of a step above 0."""
    if any(side <= 0 or side % step for side in size):
        height, width = size
        nearest = "x".join(str(max(round(side / step), 1) * step) for side in (width, height))
        raise LiditError(  # as --size has it: width first
            f"size {width}x{height}: each side must be a multiple of {step} (patch x "
            f"downsampling of the autoencoder); the nearest size is {nearest} (width x height)"
        )


def far_from_training(size: tuple[int, int], trained: int) -> str | None:
    """A warning about a size at which a model draws other things than asked; None for others.

    Args:
      size: (height, width) in pixels.
      trained: side of the training images.
    """
    times = math.sqrt(size[0] * size[1]) / trained
    if 1 / _FAR <= times <= _FAR:
        return None
    far = f"{times:.1f} times" if times > 1 else f"1/{1 / times:.1f} of"
    return (
        f"size {size[1]}x{size[0]} is {far} the {trained}x{trained} of training: expect shapes "
        "that repeat or fall apart; draw nearer to it and resize the picture"
    )


def size_of_aspect(aspect: tuple[int, int], area: int, step: int) -> tuple[int, int]:
    """Height and width near an area, in multiples of a step, as near to an aspect as these allow.

    Args:
      aspect: width and height, of which only the ratio matters.
      area: in pixels.
      step: what each side must be a multiple of.
    """
    ratio = aspect[0] / aspect[1]
    width = max(round((area * ratio) ** 0.5 / step), 1) * step
    height = max(round((area / ratio) ** 0.5 / step), 1) * step
    return height, width
