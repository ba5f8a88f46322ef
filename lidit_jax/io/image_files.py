"""Image reading for all commands: upright, sRGB, 8 bits per channel.

For an animation or a file with several pages, this is the first image.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from lidit_jax.errors import LiditError
from lidit_jax.io.color_descriptions import described_profile
from lidit_jax.io.image_colors import has_other_colors, to_srgb
from lidit_jax.io.image_crops import CENTER, Box, crop_box, orientation, stored_box, turned
from lidit_jax.io.image_depths import is_deep, to_eight_bits
from lidit_jax.io.image_orientation import add_late_metadata
from lidit_jax.io.image_repair import PILLOW_ERRORS, load_partly, with_end

_REMEDY = "replace or remove it"
MOST_MEGAPIXELS = 178.95697
"""Limit above which images are refused before decoding: Pillow's own limit."""
_SPARE = 2
"""Smallest ratio of a downscaled JPEG's size to the requested one, for LANCZOS resampling."""
_NOT_DECODED = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PSD", "WMF")
"""Formats that Pillow opens without decoding, or with another program; PSD files may lack the
merged image."""


class UnreadableImageError(LiditError):
    """Image that cannot be decoded, or has too many pixels."""

    def __init__(self, message: str, too_large: bool = False):
        super().__init__(message)
        self.too_large = too_large

    def __reduce__(self) -> tuple[type, tuple[str, bool]]:
        """Pickle both arguments, for transfer from a reader process."""
        return type(self), (str(self), self.too_large)


class Header(NamedTuple):
    """Metadata of an image before its pixels are decoded."""

    width: int
    """Width of the upright image, in pixels."""
    height: int
    scalable: bool
    """Whether a downscaled version can be decoded faster: JPEG."""
    converted: bool
    """Whether its values are not 8-bit sRGB, so that they are converted."""


def suffixes() -> frozenset[str]:
    """Return the lower-case suffixes of all image files that can be decoded: ".png", ".jpg", …"""
    Image.init()
    known = {*Image.OPEN, "MPO"} - {*_NOT_DECODED}
    return frozenset(end for end, name in Image.registered_extensions().items() if name in known)


def read_header(stream: BinaryIO, named: str | Path) -> Header:
    """Read the header of an image, without decoding it.

    Args:
      stream: the file's content, from its beginning.
      named: name of the file in messages.

    Raises:
      LiditError: when it is not an image, or too large.
    """
    try:
        with _opened(stream) as image:
            add_late_metadata(image, stream)
            return _header(image)
    except PILLOW_ERRORS as error:
        raise _unreadable(str(named), _REMEDY, error) from error


def decode(file: Path | BinaryIO, named: str | None = None, remedy: str = _REMEDY) -> Image.Image:
    """Decode an image, upright, in sRGB: mode "RGB", or "RGBA" if any part may be transparent.

    Args:
      file: a path, or the content from its beginning; of any format that Pillow decodes.
      named: name in messages; None for its path.
      remedy: remedy in messages.

    Raises:
      LiditError: when it cannot be decoded.
    """
    try:
        with _opened(file) as image:
            return _decoded(image)
    except PILLOW_ERRORS as error:
        raise _unreadable(named or str(file), remedy, error) from error


def on_white(image: Image.Image) -> Image.Image:
    """Convert a result of `decode` to mode "RGB", with white behind transparent parts."""
    if image.mode != "RGBA":
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


class Fitted(NamedTuple):
    """Image in the requested shape."""

    image: UInt8[np.ndarray, "H W 3"]
    box: Box
    """Crop of the upright image, in pixels."""
    damage: str = ""
    """Reason why only a part could be decoded; empty for an intact image."""


def read_fitted(
    file: Path | BinaryIO,
    size: tuple[int, int],
    place: tuple[float, float] = CENTER,
    *,
    named: str | None = None,
    most_megapixels: float = MOST_MEGAPIXELS,
    repair: bool = False,
) -> Fitted:
    """Read an image, upright and on white, cropped to the shape of `size` and scaled to it.

    A much larger JPEG is decoded downscaled, see `reduction`: this takes a fraction of the time,
    and differs by rounding.

    Args:
      file: a path, or the file's content from its beginning.
      size: height and width in pixels.
      place: position of the crop, down and to the right, from 0 to 1; centered by default.
      named: name in messages; None for its path.
      most_megapixels: limit of the image's size, as decoding takes memory.
      repair: whether a damaged image is decoded as far as its data go, instead of refused; the
        missing part is gray in a JPEG, otherwise black, of the palette's first color, or white
        in a transparent image.

    Raises:
      UnreadableImageError: when it cannot be decoded, or is too large.
    """
    try:
        return _read_fitted(file, size, place, most_megapixels)
    except PILLOW_ERRORS as error:
        if repair and not isinstance(error, (_TooLargeError, Image.DecompressionBombError)):
            with suppress(*PILLOW_ERRORS):
                fitted = _read_fitted(with_end(file), size, place, most_megapixels, repair=True)
                return fitted._replace(damage=_reason(error))
        raise _unreadable(named or str(file), _REMEDY, error) from error


def fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Crop the center of an image to the shape of `size` (height, width) and scale it to it."""
    return _scaled(image, size, crop_box((image.height, image.width), size))


def reduction(header: Header, size: tuple[int, int]) -> int:
    """Return the factor by which `read_fitted` decodes an image downscaled: 1, 2, 4 or 8.

    The decoded image is at least twice as large as the result, (height, width).
    """
    most = 1
    if header.scalable:
        most = min(header.height // (_SPARE * size[0]), header.width // (_SPARE * size[1]))
    return next(factor for factor in (8, 4, 2, 1) if factor <= max(most, 1))


def open_quietly(file: Path | BinaryIO) -> ImageFile.ImageFile:
    """Open an image without Pillow's warning of many pixels; twice as many are an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(file)


def _read_fitted(
    file: Path | BinaryIO,
    size: tuple[int, int],
    place: tuple[float, float],
    most_megapixels: float,
    repair: bool = False,
) -> Fitted:
    with _opened(file, most_megapixels) as image:
        header = _header(image)
        box = crop_box((header.height, header.width), size, place)
        factor = reduction(header, size)
        if factor > 1:
            return Fitted(np.asarray(_reduced(image, factor, size, box, repair)), box)
        if repair:
            load_partly(image)
        whole = on_white(_decoded(image))
        box = crop_box((whole.height, whole.width), size, place)
        return Fitted(np.asarray(_scaled(whole, size, box)), box)


@contextmanager
def _opened(
    file: Path | BinaryIO, most_megapixels: float = MOST_MEGAPIXELS
) -> Iterator[ImageFile.ImageFile]:
    """Yield an image before decoding, with a profile if its file describes its colors."""
    with open_quietly(file) as image:
        pixels = image.width * image.height
        if pixels > most_megapixels * 1e6:
            raise _TooLargeError(pixels, most_megapixels)
        image.info["icc_profile"] = described_profile(image)
        yield image


def _header(image: Image.Image) -> Header:
    converted = is_deep(image) or has_other_colors(image)
    width, height = turned(orientation(image), image.size)
    return Header(width, height, image.format in ("JPEG", "MPO"), converted)


def _decoded(image: Image.Image) -> Image.Image:
    image.load()  # while its file is open
    shades = to_eight_bits(image)
    ImageOps.exif_transpose(shades, in_place=True)
    return to_srgb(shades)


def _reduced(
    image: ImageFile.ImageFile, factor: int, size: tuple[int, int], box: Box, repair: bool
) -> Image.Image:
    """Return a part of a JPEG, decoded downscaled by `factor`."""
    stored, way = (image.height, image.width), orientation(image)
    image.draft(None, (image.width // factor, image.height // factor))
    if repair:
        load_partly(image)
    # The last row and column may represent only part of a pixel.
    part = Box(*(side / factor for side in stored_box(box, way, stored)))
    small = _scaled(to_srgb(image), turned(way, size), part)
    small.info = image.info
    return ImageOps.exif_transpose(small)


def _scaled(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    return image.resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box)


class _TooLargeError(ValueError):
    """Too many pixels: their number, and the limit in megapixels."""


def _unreadable(named: str, remedy: str, error: Exception) -> UnreadableImageError:
    """Return the one-line error about an unusable image, from Pillow's exception."""
    if isinstance(error, Image.DecompressionBombError):
        pixels, limit = map(int, re.findall(r"\d+", str(error))[:2])
        error = _TooLargeError(pixels, limit / 1e6)
    if isinstance(error, _TooLargeError):
        pixels, limit = error.args
        return UnreadableImageError(
            f"{named} has {_rounded(pixels / 1e6)} megapixels, the limit is {_rounded(limit)}: "
            "scale it down",
            too_large=True,
        )
    return UnreadableImageError(f"{named} is not a readable image: {remedy} ({_reason(error)})")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "unknown format"  # Pillow's message shows a memory address
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    return reason or type(error).__name__


def _rounded(megapixels: float) -> str:
    return f"{megapixels:.0f}" if megapixels >= 10 else f"{megapixels:.2g}"
