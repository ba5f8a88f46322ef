"""Crop boxes that fill a target shape, in upright or stored pixel coordinates."""

from __future__ import annotations

from typing import NamedTuple

from PIL import ExifTags, Image

CENTER = (0.5, 0.5)
"""Centered position of a crop, down and to the right, as shares of the pixels cut off."""
_TURNED = (5, 6, 7, 8)
_MIRRORED_ACROSS = (2, 3, 7, 8)
_MIRRORED_DOWN = (3, 4, 6, 7)
"""EXIF orientations that swap the sides of an image, or reverse its columns or rows."""


class Box(NamedTuple):
    """Rectangle in pixels, not necessarily integers."""

    left: float
    top: float
    right: float
    bottom: float


def crop_box(
    image: tuple[int, int], size: tuple[int, int], place: tuple[float, float] = CENTER
) -> Box:
    """Return the largest part of an image with the shape of `size`.

    Args:
      image: height and width.
      size: height and width, of which only the ratio is used.
      place: position of the part, down and to the right, from 0 to 1.
    """
    height, width = image
    ratio = size[1] / size[0]
    box_height, box_width = float(height), float(width)
    if width / height > ratio:
        box_width = ratio * height
    elif width / height < ratio:
        box_height = width / ratio
    top, left = (height - box_height) * place[0], (width - box_width) * place[1]
    return Box(left, top, left + box_width, top + box_height)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image: 1 for upright, up to 8.

    For a PNG only metadata before its pixels is read. Pillow decodes a TIFF upright, so its size is
    that of the upright image.
    """
    if image.format == "TIFF":
        return 1
    # A PNG's own method decodes the image to read metadata after its pixels.
    found = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return found if found in range(1, 9) else 1


def turned(orientation: int, size: tuple[int, int]) -> tuple[int, int]:
    """Convert two sides between stored and upright order."""
    return (size[1], size[0]) if orientation in _TURNED else size


def stored_box(box: Box, orientation: int, stored: tuple[int, int]) -> Box:
    """Return the box of an upright image's part in the image as stored in its file.

    Args:
      box: box in the upright image.
      orientation: EXIF orientation of the file.
      stored: height and width of the image in the file.
    """
    left, top, right, bottom = box
    if orientation in _TURNED:
        left, top, right, bottom = top, left, bottom, right
    height, width = stored
    if orientation in _MIRRORED_ACROSS:
        left, right = width - right, width - left
    if orientation in _MIRRORED_DOWN:
        top, bottom = height - bottom, height - top
    return Box(left, top, right, bottom)
