"""Perceptual hash of an image, which hardly changes with its size or compression."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from PIL import Image

from lidit_jax.io.image_files import Header, read_fitted

_SIDE = 8
_READ = 64
"""Shorter side at which the image is read, in pixels; large JPEGs are decoded downscaled."""
_LONGEST = 1024


def perceptual_hash(stream: BinaryIO, header: Header, named: str) -> int:
    """Return the 64-bit "dHash": whether each of 8 x 8 cells is darker than its right neighbor.

    For one image scaled, compressed or without its colors few bits differ, usually at most six;
    for unrelated images about half.

    Args:
      stream: the image's file, from its beginning.
      header: result of `read_header` for it.
      named: its name in messages.

    Raises:
      LiditError: when it cannot be decoded.
    """
    scale = _READ / min(header.height, header.width)
    height, width = (min(round(side * scale), _LONGEST) for side in (header.height, header.width))
    gray = Image.fromarray(read_fitted(stream, (height, width), named=named).image).convert("L")
    small = np.asarray(gray.resize((_SIDE + 1, _SIDE), Image.Resampling.BOX), np.int16)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")
