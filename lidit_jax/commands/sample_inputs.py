"""What `lidit sample` reads before it draws: prompts, pictures, sizes, and where to write."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lidit_jax.errors import LiditError

if TYPE_CHECKING:
    import numpy as np


def read_prompts(options: argparse.Namespace) -> list[str]:
    """The prompts of --prompt, then the lines of --prompts.

    Raises:
      LiditError: when there is none, or the file cannot be read.
    """
    prompts = list(options.prompt)
    if any(not prompt.strip() for prompt in prompts):
        raise LiditError(
            '--prompt is empty: say what you want to see, as in --prompt="a red circle"'
        )
    if options.prompts:
        try:
            lines = options.prompts.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise LiditError(
                f"--prompts: cannot read {options.prompts} ({reason}): "
                "name a text file with one prompt a line"
            ) from error
        prompts += [line.strip() for line in lines if line.strip()]
        if not prompts:
            raise LiditError(f"--prompts: {options.prompts} is empty: write one prompt a line")
    if not prompts:
        raise LiditError("nothing to draw: give --prompt=TEXT or --prompts=FILE")
    return prompts


def output_files(out: Path, count: int, grid: bool) -> list[Path]:
    """The PNG files to write: `out` itself, or numbered ones (`grid.png`) in the folder `out`.

    Raises:
      LiditError: when the name is a folder, of another format, or one for several images.
    """
    if out.suffix.lower() == ".png":
        if out.is_dir():
            raise LiditError(f"--out={out} is a folder: name a .png file in it")
        if count > 1 and not grid:
            raise LiditError(
                f"--out={out} is one file for {count} images: name a folder, or add --grid"
            )
        return [out]
    if out.suffix.lower() in (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"):
        raise LiditError(f"--out={out}: images are written as PNG: end the name in .png")
    return [out / "grid.png"] if grid else [out / f"{i:04d}.png" for i in range(count)]


def read_picture(path: Path, option: str, size: tuple[int, int] | None, step: int) -> np.ndarray:
    """A picture as uint8 [H, W, 3].

    Args:
      path: any format that Pillow reads.
      option: which option named it, for messages.
      size: (height, width) to scale and crop it to; None for its own, cropped to multiples of
        `step`.
      step: what sides must be multiples of.

    Raises:
      LiditError: when it cannot be read, or is smaller than `step`.
    """
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, ValueError) as error:
        raise LiditError(f"{option}={path} is not a readable picture: name another") from error
    if size is None:
        size = (picture.height // step * step, picture.width // step * step)
        if not all(size):
            raise LiditError(f"{option}={path} is smaller than {step}x{step}: name a larger one")
    return np.asarray(ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.LANCZOS))


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A mask as bool [H, W]: True where the picture is bright. Raises `LiditError`."""
    return read_picture(path, "--mask", size, 1).mean(axis=-1) > 127.5


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
