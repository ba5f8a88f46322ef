"""Which part of a picture fills a shape: boxes in pixels, upright or as a file stores them."""

from __future__ import annotations

from typing import NamedTuple

from PIL import ExifTags, Image

CENTER = (0.5, 0.5)
"""Where a crop lies, down and to the right: shares of what is cut off; 0.5 is the middle."""
_TURNED = (5, 6, 7, 8)
_MIRRORED_ACROSS = (2, 3, 7, 8)
_MIRRORED_DOWN = (3, 4, 6, 7)
"""EXIF orientations that swap the sides of a picture, or count its columns or rows backwards."""


class Box(NamedTuple):
    """A rectangle in pixels, which need not be whole."""

    left: float
    top: float
    right: float
    bottom: float


def crop_box(
    picture: tuple[int, int], size: tuple[int, int], place: tuple[float, float] = CENTER
) -> Box:
    """The largest part of a picture that has the shape of `size`.

    Args:
      picture: height and width.
      size: height and width, of which only the ratio matters.
      place: where the part lies, down and to the right, from 0 to 1.
    """
    height, width = picture
    ratio = size[1] / size[0]
    box_height, box_width = float(height), float(width)
    if width / height > ratio:
        box_width = ratio * height
    elif width / height < ratio:
        box_height = width / ratio
    top, left = (height - box_height) * place[0], (width - box_width) * place[1]
    return Box(left, top, left + box_width, top + box_height)


def orientation(picture: Image.Image) -> int:
    """How an opened picture is stored: 1 for upright, up to 8, as EXIF counts.

    Of a PNG only what stands before its pixels is read. A TIFF is turned as Pillow decodes it, and
    has the size of the upright picture from the beginning.
    """
    if picture.format == "TIFF":
        return 1
    # A PNG's own method decodes the picture, to see what stands behind its pixels.
    found = Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1)
    return found if found in range(1, 9) else 1


def turned(orientation: int, size: tuple[int, int]) -> tuple[int, int]:
    """Two sides, stored or upright, as they are in the other of both."""
    return (size[1], size[0]) if orientation in _TURNED else size


def stored_box(box: Box, orientation: int, stored: tuple[int, int]) -> Box:
    """Where a part of the upright picture lies in the picture as its file stores it.

    Args:
      box: in the upright picture.
      orientation: of the file.
      stored: height and width of the picture in the file.
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
