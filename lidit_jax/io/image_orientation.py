"""Orientation metadata of PNG files, which may be before or after the pixels."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

from PIL import Image

_SIGNATURE, _HEAD = 8, 8
"""Bytes of a PNG before its first chunk, and of a chunk's length and name."""
_CHECKSUM = 4
_XMP = b"XML:com.adobe.xmp\0"


def add_late_metadata(image: Image.Image, stream: BinaryIO) -> None:
    """Add EXIF and XMP data after a PNG's pixels to the image, without decoding it.

    Args:
      image: opened image, not yet decoded; other formats are unchanged.
      stream: its file; the position is restored.
    """
    if image.format == "PNG" and "exif" not in image.info:
        image.info |= _metadata_anywhere(stream)


def _metadata_anywhere(stream: BinaryIO) -> dict[str, bytes]:
    """Return a PNG's EXIF and XMP data; for a damaged file, those before the damage."""
    found: dict[str, bytes] = {}
    position = stream.tell()
    stream.seek(_SIGNATURE)
    while len(head := stream.read(_HEAD)) == _HEAD:
        length, name = struct.unpack(">I4s", head)
        content = stream.read(length) if name in (b"eXIf", b"iTXt") else b""
        if name == b"eXIf":
            found["exif"] = b"Exif\0\0" + content
        elif content.startswith(_XMP):
            found["xmp"] = content
        stream.seek(length - len(content) + _CHECKSUM, os.SEEK_CUR)
    stream.seek(position)
    return found
