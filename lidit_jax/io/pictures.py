"""Pictures from files: upright, in sRGB, 8 bits a channel. All commands read them here.

Of an animation, and of a file with several pages, the first picture is taken.
"""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from lidit_jax.errors import LiditError
from lidit_jax.io.color_descriptions import described_profile
from lidit_jax.io.picture_colors import has_other_colors, to_srgb
from lidit_jax.io.picture_crops import CENTER, Box, crop_box, orientation, stored_box, turned
from lidit_jax.io.picture_depths import is_deep, to_eight_bits
from lidit_jax.io.picture_orientation import add_late_metadata

_DAMAGE = (EOFError, IndexError, KeyError, SyntaxError, TypeError, struct.error, zlib.error)
_ERRORS = (OSError, ValueError, NotImplementedError, Image.DecompressionBombError, *_DAMAGE)
"""What Pillow raises where it does not know a file, and where it trusts a damaged one."""
_REMEDY = "replace or remove it"
MOST_MEGAPIXELS = 178.95697
"""Pictures with more pixels are refused before they are decoded: Pillow's own limit."""
_SPARE = 2
"""How many times larger than asked for a JPEG is decoded at least; LANCZOS does the rest."""
_NOT_DECODED = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PSD", "WMF")
"""What Pillow opens without decoding it, or with another program; PSD is a working file, whose
merged picture its program leaves out unless told."""


class UnreadablePictureError(LiditError):
    """A picture that cannot be decoded, or has more pixels than are read."""

    def __init__(self, message: str, too_large: bool = False):
        super().__init__(message)
        self.too_large = too_large

    def __reduce__(self) -> tuple[type, tuple[str, bool]]:
        """Keeps both arguments on the way from a process that reads."""
        return type(self), (str(self), self.too_large)


class Header(NamedTuple):
    """What is known of a picture before its pixels are decoded."""

    width: int
    """Of the upright picture, in pixels."""
    height: int
    scalable: bool
    """Whether a smaller version can be decoded in less time: JPEG."""
    converted: bool
    """Whether its numbers are not sRGB of 8 bits a channel, so that they are converted."""


def suffixes() -> frozenset[str]:
    """The ends of names, in lower case, of all files that are decoded here: ".png", ".jpg", …"""
    Image.init()
    known = {*Image.OPEN, "MPO"} - {*_NOT_DECODED}
    return frozenset(end for end, name in Image.registered_extensions().items() if name in known)


def read_header(stream: BinaryIO, named: str | Path) -> Header:
    """What the header of a picture says, without decoding it.

    Args:
      stream: the file's content, from its beginning.
      named: what messages call the file.

    Raises:
      LiditError: when it is no picture, or too large a one.
    """
    try:
        with _opened(stream) as picture:
            add_late_metadata(picture, stream)
            return _header(picture)
    except _ERRORS as error:
        raise _unreadable(str(named), _REMEDY, error) from error


def decode(file: Path | BinaryIO, named: str | None = None, remedy: str = _REMEDY) -> Image.Image:
    """A whole picture, upright, in sRGB: mode "RGB", or "RGBA" where anything may be transparent.

    Args:
      file: a path, or the content from its beginning; of any format that Pillow decodes.
      named: what messages call it; None for its path.
      remedy: what messages advise.

    Raises:
      LiditError: when it cannot be decoded.
    """
    try:
        with _opened(file) as picture:
            return _decoded(picture)
    except _ERRORS as error:
        raise _unreadable(named or str(file), remedy, error) from error


def on_white(picture: Image.Image) -> Image.Image:
    """What `decode` gave, as mode "RGB": white shows through where it is transparent."""
    if picture.mode != "RGBA":
        return picture
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


class Fitted(NamedTuple):
    """A picture in the shape that was asked for."""

    image: UInt8[np.ndarray, "H W 3"]
    box: Box
    """The part of the upright picture that it shows, in pixels."""


def read_fitted(
    file: Path | BinaryIO,
    size: tuple[int, int],
    place: tuple[float, float] = CENTER,
    *,
    named: str | None = None,
    most_megapixels: float = MOST_MEGAPIXELS,
) -> Fitted:
    """A picture, upright and on white, cropped to the shape of `size` and scaled to it.

    A JPEG much larger than that is decoded in a smaller version, see `reduction`: it takes a small
    part of the time and differs by rounding.

    Args:
      file: a path, or the file's content from its beginning.
      size: height and width in pixels.
      place: where the crop lies, down and to the right, from 0 to 1; the middle by default.
      named: what messages call it; None for its path.
      most_megapixels: pictures with more are refused, as decoding them takes memory.

    Raises:
      UnreadablePictureError: when it cannot be decoded, or is too large.
    """
    try:
        with _opened(file, most_megapixels) as picture:
            header = _header(picture)
            box = crop_box((header.height, header.width), size, place)
            factor = reduction(header, size)
            if factor > 1:
                return Fitted(np.asarray(_reduced(picture, factor, size, box)), box)
            whole = on_white(_decoded(picture))
            box = crop_box((whole.height, whole.width), size, place)
            return Fitted(np.asarray(_scaled(whole, size, box)), box)
    except _ERRORS as error:
        raise _unreadable(named or str(file), _REMEDY, error) from error


def fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The middle of a picture, cropped to the shape of `size` (height, width) and scaled to it."""
    return _scaled(picture, size, crop_box((picture.height, picture.width), size))


def reduction(header: Header, size: tuple[int, int]) -> int:
    """By how much a picture is decoded smaller for `read_fitted`: 1, 2, 4 or 8 times.

    What is decoded stays at least twice as large as the result, (height, width).
    """
    most = 1
    if header.scalable:
        most = min(header.height // (_SPARE * size[0]), header.width // (_SPARE * size[1]))
    return next(factor for factor in (8, 4, 2, 1) if factor <= max(most, 1))


def open_quietly(file: Path | BinaryIO) -> ImageFile.ImageFile:
    """As Pillow opens it, without its warning of many pixels: twice as many are an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(file)


@contextmanager
def _opened(
    file: Path | BinaryIO, most_megapixels: float = MOST_MEGAPIXELS
) -> Iterator[Image.Image]:
    """A picture that is not yet decoded, with a profile wherever its file describes its colors."""
    with open_quietly(file) as picture:
        pixels = picture.width * picture.height
        if pixels > most_megapixels * 1e6:
            raise _TooLargeError(pixels, most_megapixels)
        picture.info["icc_profile"] = described_profile(picture)
        yield picture


def _header(picture: Image.Image) -> Header:
    converted = is_deep(picture) or has_other_colors(picture)
    width, height = turned(orientation(picture), picture.size)
    return Header(width, height, picture.format in ("JPEG", "MPO"), converted)


def _decoded(picture: Image.Image) -> Image.Image:
    shades = to_eight_bits(picture)
    ImageOps.exif_transpose(shades, in_place=True)
    return to_srgb(shades)


def _reduced(picture: Image.Image, factor: int, size: tuple[int, int], box: Box) -> Image.Image:
    """A part of a JPEG that is decoded `factor` times smaller."""
    stored, way = (picture.height, picture.width), orientation(picture)
    picture.draft(None, (picture.width // factor, picture.height // factor))
    # The last row and the last column may stand for a part of a pixel only.
    part = Box(*(side / factor for side in stored_box(box, way, stored)))
    small = _scaled(to_srgb(picture), turned(way, size), part)
    small.info = picture.info
    return ImageOps.exif_transpose(small)


def _scaled(picture: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    return picture.resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box)


class _TooLargeError(ValueError):
    """More pixels than are read: how many, and the limit in megapixels."""


def _unreadable(named: str, remedy: str, error: Exception) -> UnreadablePictureError:
    """The one line about a picture that cannot be used, from what Pillow raised."""
    if isinstance(error, Image.DecompressionBombError):
        pixels, limit = map(int, re.findall(r"\d+", str(error))[:2])
        error = _TooLargeError(pixels, limit / 1e6)
    if isinstance(error, _TooLargeError):
        pixels, limit = error.args
        return UnreadablePictureError(
            f"{named} has {_rounded(pixels / 1e6)} megapixels, and no more than {_rounded(limit)} "
            "are read: scale it down",
            too_large=True,
        )
    if isinstance(error, UnidentifiedImageError):
        reason = "no format that is known"  # its own words show an address of memory
    else:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return UnreadablePictureError(
        f"{named} is not a readable picture: {remedy} ({reason or type(error).__name__})"
    )


def _rounded(megapixels: float) -> str:
    return f"{megapixels:.0f}" if megapixels >= 10 else f"{megapixels:.2g}"
