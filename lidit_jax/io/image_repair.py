"""Repair of damaged images: they are decoded as far as their data go."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

_DAMAGE = (EOFError, IndexError, KeyError, SyntaxError, TypeError, struct.error, zlib.error)
PILLOW_ERRORS = (OSError, ValueError, NotImplementedError, Image.DecompressionBombError, *_DAMAGE)
"""Exceptions of Pillow for unknown and damaged files."""
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


def with_end(file: Path | BinaryIO) -> io.BytesIO:
    """Return the content of an image file, with an end mark if it is a JPEG.

    With it, a JPEG that breaks off is decoded, and the missing part is gray.
    """
    if isinstance(file, Path):
        content = file.read_bytes()
    else:
        file.seek(0)
        content = file.read()
    return io.BytesIO(content + _JPEG_END if content.startswith(_JPEG_START) else content)


def load_partly(image: ImageFile.ImageFile) -> None:
    """Decode an opened image as far as its data go; the rest stays zero, in most modes black.

    Pillow's own switch for it, `ImageFile.LOAD_TRUNCATED_IMAGES`, would apply to all threads.

    Args:
      image: opened from a result of `with_end`; decoding it again changes nothing.

    Raises:
      ValueError: when nothing was decoded, so that the image has only one color.
      OSError: when it cannot be decoded at all.
    """
    with contextlib.suppress(*PILLOW_ERRORS):
        image.load()
    image.tile = []  # Pillow decodes no further, and keeps the lines that it has
    image.load()
    lowest, highest = np.reshape(image.getextrema(), (-1, 2)).T
    if np.array_equal(lowest, highest):
        raise ValueError("nothing of it can be decoded")
