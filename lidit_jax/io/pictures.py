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
from PIL import Image, ImageFile, ImageOps

from lidit_jax.errors import LiditError
from lidit_jax.io.color_descriptions import described_profile
from lidit_jax.io.picture_colors import has_other_colors, to_srgb
from lidit_jax.io.picture_depths import is_deep, to_eight_bits

_DAMAGE = (EOFError, IndexError, KeyError, SyntaxError, TypeError, struct.error, zlib.error)
_ERRORS = (OSError, ValueError, NotImplementedError, Image.DecompressionBombError, *_DAMAGE)
"""What Pillow raises where it does not know a file, and where it trusts a damaged one."""
_REMEDY = "replace or remove it"
_SPARE = 2
"""How many times larger than asked for a JPEG is decoded at least; LANCZOS does the rest."""
_NOT_DECODED = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PSD", "WMF")
"""What Pillow opens without decoding it, or with another program; PSD is a working file, whose
merged picture its program leaves out unless told."""


class Header(NamedTuple):
    """What is known of a picture before its pixels are decoded."""

    width: int
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
            return _header(picture)
    except _ERRORS as error:
        raise _unreadable(str(named), _REMEDY, error) from error


def decode(file: Path, named: str | None = None, remedy: str = _REMEDY) -> Image.Image:
    """A whole picture, upright, in sRGB: mode "RGB", or "RGBA" where anything may be transparent.

    Args:
      file: of any format that Pillow decodes.
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


def read_square(file: Path, side: int) -> UInt8[np.ndarray, "H W 3"]:
    """The middle square of a picture, upright, on white and `side` pixels wide.

    A JPEG much larger than that is decoded in a smaller version, see `reduction`: it takes a small
    part of the time and differs by rounding.

    Raises:
      LiditError: when it cannot be decoded.
    """
    try:
        with _opened(file) as picture:
            factor = reduction(_header(picture), side)
            if factor > 1:
                return np.asarray(_reduced_square(picture, factor, side))
            return np.asarray(fit(on_white(_decoded(picture)), (side, side)))
    except _ERRORS as error:
        raise _unreadable(str(file), _REMEDY, error) from error


def fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The middle of a picture, cropped to the shape of `size` (height, width) and scaled to it."""
    return ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.LANCZOS)


def reduction(header: Header, side: int) -> int:
    """By how much a picture is decoded smaller when `read_square` reads it: 1, 2, 4 or 8 times.

    What is decoded stays at least twice as large as the result.
    """
    most = min(header.height, header.width) // (_SPARE * side) if header.scalable else 1
    return next(factor for factor in (8, 4, 2, 1) if factor <= max(most, 1))


def open_quietly(file: Path | BinaryIO) -> ImageFile.ImageFile:
    """As Pillow opens it, without its warning of many pixels: twice as many are an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(file)


@contextmanager
def _opened(file: Path | BinaryIO) -> Iterator[Image.Image]:
    """A picture that is not yet decoded, with a profile wherever its file describes its colors."""
    with open_quietly(file) as picture:
        picture.info["icc_profile"] = described_profile(picture)
        yield picture


def _header(picture: Image.Image) -> Header:
    converted = is_deep(picture) or has_other_colors(picture)
    return Header(*picture.size, picture.format in ("JPEG", "MPO"), converted)


def _decoded(picture: Image.Image) -> Image.Image:
    return to_srgb(ImageOps.exif_transpose(to_eight_bits(picture)))


def _reduced_square(picture: Image.Image, factor: int, side: int) -> Image.Image:
    """The square of a JPEG that is decoded `factor` times smaller."""
    whole = picture.size
    picture.draft(None, (picture.width // factor, picture.height // factor))
    # The last row and the last column may stand for a part of a pixel only.
    width, height = whole[0] / factor, whole[1] / factor
    edge = min(width, height)
    left, top = (width - edge) / 2, (height - edge) / 2
    small = to_srgb(picture).resize(
        (side, side), Image.Resampling.LANCZOS, box=(left, top, left + edge, top + edge)
    )
    small.info = picture.info
    return ImageOps.exif_transpose(small)


def _unreadable(named: str, remedy: str, error: Exception) -> LiditError:
    """The one line about a picture that cannot be used, from what Pillow raised."""
    if isinstance(error, Image.DecompressionBombError):
        pixels, limit = (int(count) / 1e6 for count in re.findall(r"\d+", str(error))[:2])
        return LiditError(
            f"{named} has {pixels:.0f} megapixels, and no more than {limit:.0f} are read: "
            "scale it down"
        )
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return LiditError(
        f"{named} is not a readable picture: {remedy} ({reason or type(error).__name__})"
    )
