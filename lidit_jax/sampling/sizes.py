"""Image sizes in pixels: parsing, validation, and a warning far from the training size."""

from __future__ import annotations

import math
from typing import Any

from lidit_jax.config.data_config import DataConfig
from lidit_jax.data.buckets import Buckets
from lidit_jax.errors import LiditError
from lidit_jax.sampling.values import as_integer, as_list, is_single

_SAME = 1.1
"""Largest ratio of two aspects of which one training shape is for both: nine shapes from 1:2 to 2:1
are twice as far from each other."""
_FAR = 2.0
"""Multiple of the training side from which to warn: objects repeat from about there."""


def height_and_width(size: Any) -> tuple[int, int]:
    """Return (height, width) from a side or a pair. Raises `LiditError` for anything else."""
    sides = [size, size] if is_single(size) else size
    sides = as_list("size", sides, as_integer)
    if len(sides) != 2:
        raise LiditError(f"size={size!r}: must be a side, or (height, width), in pixels")
    return sides[0], sides[1]


def check_size(size: tuple[int, int], step: int) -> None:
    """Raise `LiditError` unless both sides, in pixels, are positive multiples of `step`."""
    if any(side <= 0 or side % step for side in size):
        height, width = size
        nearest = "x".join(str(max(round(side / step), 1) * step) for side in (width, height))
        raise LiditError(  # as in --size: width first
            f"size {width}x{height}: each side must be a multiple of {step} (patch x "
            f"downsampling of the autoencoder); the nearest size is {nearest} (width x height)"
        )


def far_from_training(size: tuple[int, int], trained: int) -> str | None:
    """Return a warning for a size too far from training to follow prompts; else None.

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
        "that repeat or fall apart; draw nearer to it and resize the image"
    )


def natural_size(aspect: tuple[int, int], config: DataConfig, step: int) -> tuple[int, int]:
    """Return the training shape of images with an aspect ratio, or else a size of the same area.

    Args:
      aspect: width and height, of which only the ratio matters.
      config: the training data of the model.
      step: what each side must be a multiple of.
    """
    shapes = Buckets(config.image_size, step, config.buckets).shapes
    ratio = math.log(aspect[0] / aspect[1])
    nearest = min(shapes, key=lambda shape: abs(math.log(shape[1] / shape[0]) - ratio))
    if abs(math.log(nearest[1] / nearest[0]) - ratio) <= math.log(_SAME):
        return nearest
    return size_of_aspect(aspect, config.image_size**2, step)


def size_of_aspect(aspect: tuple[int, int], area: int, step: int) -> tuple[int, int]:
    """Return height and width near an area and an aspect ratio, in multiples of a step.

    Args:
      aspect: width and height, of which only the ratio matters.
      area: in pixels.
      step: what each side must be a multiple of.
    """
    ratio = aspect[0] / aspect[1]
    width = max(round((area * ratio) ** 0.5 / step), 1) * step
    height = max(round((area / ratio) ** 0.5 / step), 1) * step
    return height, width
