"""Drawing of image grids with captions."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

_TILE = 192
_FONT_SIZE = 13
_LINES = 3


def captioned_grid(
    images: UInt8[np.ndarray, "B H W 3"],
    captions: Sequence[str],
    frames: Sequence[str] | None = None,
    columns: int | None = None,
) -> Image.Image:
    """Arrange images in a near-square grid, each with its caption below.

    Args:
      images: the images, shown in tiles of equal size.
      captions: one per image, wrapped to three lines.
      frames: color name of the frame per image; None for no frames.
      columns: images per row.
    """
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    gap, text_height = 8, _LINES * (_FONT_SIZE + 3) + 4
    width, height = _TILE + gap, _TILE + text_height + gap
    grid = Image.new("RGB", (columns * width + gap, rows * height + gap), "white")
    draw = ImageDraw.Draw(grid)
    font = ImageFont.load_default(_FONT_SIZE)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = gap + (i % columns) * width, gap + (i // columns) * height
        tile = Image.fromarray(image).resize((_TILE, _TILE), Image.Resampling.NEAREST)
        grid.paste(tile, (x, y))
        if frames is not None:
            draw.rectangle((x - 3, y - 3, x + _TILE + 2, y + _TILE + 2), outline=frames[i], width=3)
        lines = textwrap.wrap(caption, width=28)[:_LINES]
        draw.multiline_text(
            (x, y + _TILE + 4), "\n".join(lines), fill="black", font=font, spacing=3
        )
    return grid
