"""Output size and initial image of `lidit sample`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lidit_jax.errors import LiditError
from lidit_jax.io.image_files import decode, fit, on_white
from lidit_jax.sampling.init_image import default_strength
from lidit_jax.sampling.memory import check_memory
from lidit_jax.sampling.png_metadata import pixels_sha256
from lidit_jax.sampling.sizes import check_size, natural_size

if TYPE_CHECKING:
    from lidit_jax.sampling.opened_model import OpenedModel
    from lidit_jax.sampling.png_metadata import ImageRecord


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """Image size, and initial image and mask."""

    size: tuple[int, int]
    """Height and width in pixels."""
    path: Path | None = None
    """Path of the initial image; None for noise."""
    image: np.ndarray | None = None
    mask: np.ndarray | None = None
    strength: float | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `Pipeline.__call__`."""
        names = ("size", "image", "mask", "strength")
        return {name: getattr(self, name) for name in names}

    @property
    def chunks(self) -> dict[str, Any]:
        """Return the PNG text chunks about the initial image."""
        if self.image is None:
            return {}
        strength = self.strength or default_strength(self.mask is not None)
        sha256 = pixels_sha256(self.image, self.mask)
        return {"image": self.path, "image_sha256": sha256, "strength": strength}


def read_canvas(
    options: argparse.Namespace, opened: OpenedModel, record: ImageRecord | None, count: int
) -> Canvas:
    """Return the checked size, and the initial image and mask in that size.

    Args:
      options: options of the command.
      opened: the model.
      record: record of the image to reproduce.
      count: number of images.

    Raises:
      LiditError: when the size fits neither the model nor the memory, or an image cannot be used.
    """
    size, step = record.size if record else options.size, opened.size_step
    trained = opened.config.data.image_size
    if options.aspect:
        if options.size:
            raise LiditError("--size and --aspect both set the shape: leave out one of them")
        size = natural_size(options.aspect, opened.config.data, step)
    if size is None and options.image is None:
        size = (trained, trained)
    if size is not None:
        check_size(size, step)
        check_memory(count, size)
    if options.image is None:
        if options.mask or options.strength is not None:
            raise LiditError("--mask and --strength need an initial image: give --image=FILE")
        assert size is not None  # the default size is set above
        return Canvas(size=size)
    image = read_image(options.image, "--image", size, step)
    check_memory(count, image.shape[:2])
    mask = None if options.mask is None else read_mask(options.mask, image.shape[:2])
    if record and pixels_sha256(image, mask) != record.source:
        raise LiditError(
            f"--image and --mask are not the files that {options.again} was made from: give those; "
            "it cannot be reproduced if another version decoded their colors differently"
        )
    return Canvas(
        size=image.shape[:2],
        path=options.image,
        image=image,
        mask=mask,
        strength=record.strength if record else options.strength,
    )


def read_image(path: Path, option: str, size: tuple[int, int] | None, step: int) -> np.ndarray:
    """Read an image as uint8 [H, W, 3], on white where it is transparent.

    Args:
      path: any format that Pillow decodes.
      option: the option with its path, for messages.
      size: (height, width) to scale and crop it to; None for its own, cropped to multiples of
        `step`.
      step: what sides must be multiples of.

    Raises:
      LiditError: when it cannot be read, or is smaller than `step`.
    """
    image = on_white(decode(path, f"{option}={path}", "name another"))
    if size is None:
        size = (image.height // step * step, image.width // step * step)
        if not all(size):
            raise LiditError(f"{option}={path} is smaller than {step}x{step}: name a larger one")
    return np.asarray(fit(image, size))


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Read a mask as bool [H, W]: True where the image is bright.

    If any part is transparent, the mask is the opacity, whatever the colors.

    Raises:
      LiditError: when it cannot be read.
    """
    image = decode(path, f"--mask={path}", "name another")
    if image.mode == "RGBA":
        opacity = image.getchannel("A")
        if np.asarray(opacity).min() < 255:
            return np.asarray(fit(opacity, size)) > 127.5
    return np.asarray(fit(on_white(image), size)).mean(axis=-1) > 127.5
