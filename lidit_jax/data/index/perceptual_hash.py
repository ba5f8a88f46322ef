"""A hash of what a picture looks like, which hardly changes when it is scaled or compressed."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from PIL import Image

from lidit_jax.io.pictures import Header, read_fitted

_SIDE = 8
_READ = 64
"""The shorter side of the picture that is read, in pixels; of large JPEGs it is decoded smaller."""
_LONGEST = 1024


def perceptual_hash(stream: BinaryIO, header: Header, named: str) -> int:
    """64 bits ("dHash"): whether each of 8 x 8 places is darker than the one to its right.

    Of one picture scaled, compressed or without its colors few bits differ, six or less as a rule;
    of pictures that have nothing in common about half.

    Args:
      stream: the picture's file, from its beginning.
      header: what `read_header` says of it.
      named: what messages call it.

    Raises:
      LiditError: when it cannot be decoded.
    """
    scale = _READ / min(header.height, header.width)
    height, width = (min(round(side * scale), _LONGEST) for side in (header.height, header.width))
    gray = Image.fromarray(read_fitted(stream, (height, width), named=named).image).convert("L")
    small = np.asarray(gray.resize((_SIDE + 1, _SIDE), Image.Resampling.BOX), np.int16)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")
