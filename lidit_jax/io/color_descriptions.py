"""ICC profiles for images that specify their color space by numbers instead of a profile.

PNG has the chunks cICP, and gAMA with cHRM; AVIF has a box `colr` of the kind nclx. The numbers of
cICP and nclx are those of ITU-T H.273.
"""

from __future__ import annotations

import functools
import struct
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageFile

_D65 = (0.3127, 0.3290)
_SRGB = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES = {
    1: _SRGB,
    2: _SRGB,  # not specified
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
"""ColourPrimaries codes: x and y of white, red, green and blue, as in cHRM."""
_EXPONENTS = {1: 0.0, 2: 0.0, 6: 0.0, 13: 0.0, 14: 0.0, 15: 0.0, 4: 2.2, 5: 2.8, 8: 1.0}
"""TransferCharacteristics codes: exponent from pixel value to light; 0 for the sRGB curve, with
which screens also show the television curves."""
_HIGH_RANGE = {16: "PQ", 18: "HLG"}
_GAMMA = 0.45455
"""gAMA value of the PNG standard for the sRGB curve, for decoders without color management."""
_SAME_GAMMA = 0.05
"""Largest relative difference of equal gammas, as in libpng."""
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_D50 = np.array([0.9642, 1.0, 0.8249])
"""White point of ICC profiles."""
_START = 1 << 14
"""Number of bytes at the start of an AVIF that contain its boxes."""


class _Codes(NamedTuple):
    """Color codes of H.273."""

    primaries: int
    transfer: int
    full_range: bool


def described_profile(image: ImageFile.ImageFile) -> bytes | None:
    """Return the ICC profile of an image's pixel values.

    Args:
      image: opened but not yet decoded.

    Returns:
      The embedded profile, or one made from the file's other color data; None for sRGB.

    Raises:
      ValueError: when the image has high dynamic range or unknown color codes.
    """
    embedded = image.info.get("icc_profile")
    if image.format == "PNG":
        if codes := _png_codes(_stream_of(image)):
            return _profile_of(codes)
        return embedded or _profile_of_gamma(image)
    if image.format == "AVIF" and not embedded and (codes := _avif_codes(_stream_of(image))):
        return _profile_of(codes._replace(full_range=True))  # libavif has expanded the range
    return embedded


def _stream_of(image: ImageFile.ImageFile) -> IO[bytes]:
    assert image.fp is not None  # loading closes it
    return image.fp


def _png_codes(stream: IO[bytes]) -> _Codes | None:
    """Return the codes of the cICP chunk, which precedes the pixels."""
    place = stream.tell()
    stream.seek(8)
    codes = None
    while len(head := stream.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"cICP" and length == 4:
            primaries, transfer, _, full_range = stream.read(4)
            codes = _Codes(primaries, transfer, bool(full_range))
        if codes or kind in (b"IDAT", b"IEND"):
            break
        stream.seek(length + 4, 1)
    stream.seek(place)
    return codes


def _avif_codes(stream: IO[bytes]) -> _Codes | None:
    place = stream.tell()
    stream.seek(0)
    _, found, after = stream.read(_START).partition(b"colrnclx")
    stream.seek(place)
    if not found or len(after) < 7:
        return None
    primaries, transfer, _, full_range = struct.unpack(">HHHB", after[:7])
    return _Codes(primaries, transfer, bool(full_range >> 7))


def _profile_of(codes: _Codes) -> bytes | None:
    if curve := _HIGH_RANGE.get(codes.transfer):
        raise ValueError(
            f"it has high dynamic range ({curve}), which would look pale; save it in sRGB"
        )
    if codes.primaries not in _PRIMARIES or codes.transfer not in _EXPONENTS:
        raise ValueError(
            f"its color space is not supported (cICP {codes.primaries}, {codes.transfer}); save "
            "it in sRGB"
        )
    if not codes.full_range:
        raise ValueError("it has video's limited range; save it in sRGB with full range")
    primaries, exponent = _PRIMARIES[codes.primaries], _EXPONENTS[codes.transfer]
    return None if (primaries, exponent) == (_SRGB, 0.0) else make_profile(primaries, exponent)


def _profile_of_gamma(image: Image.Image) -> bytes | None:
    """Return a profile for gAMA and cHRM; None for sRGB and for invalid values."""
    gamma, primaries = image.info.get("gamma"), image.info.get("chromaticity", _SRGB)
    if "srgb" in image.info or not (gamma or primaries != _SRGB):
        return None
    exponent = 0.0 if not gamma or abs(gamma / _GAMMA - 1) <= _SAME_GAMMA else 1 / gamma
    if exponent > 100 or not all(0 < y < 1 for y in primaries[1::2]):
        return None
    try:
        return make_profile(primaries, exponent)
    except np.linalg.LinAlgError:
        return None


@functools.lru_cache(maxsize=64)
def make_profile(primaries: tuple[float, ...], exponent: float) -> bytes:
    """Build an ICC profile, version 4, from primaries and one tone curve.

    Args:
      primaries: x and y of white, red, green and blue.
      exponent: exponent from pixel value to light; 0 for the sRGB curve.
    """
    if exponent:
        curve = struct.pack(">4s4xHxxi", b"para", 0, _fixed(exponent))
    else:
        numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        curve = struct.pack(">4s4xHxx5i", b"para", 3, *map(_fixed, numbers))
    colors = _adapted(primaries)
    tags = {b"wtpt": _xyz(_D50), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    tags |= {f"{name}XYZ".encode(): _xyz(colors[:, i]) for i, name in enumerate("rgb")}
    table, content = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, tag in tags.items():
        table += struct.pack(">4sII", name, start + len(content), len(tag))
        content += tag
    size = start + len(content)
    head = struct.pack(">I4xI4s4s4s", size, 0x04000000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s28x", 2000, 1, 1, 0, 0, 0, b"acsp")
    return (head + _xyz(_D50)[8:]).ljust(128, b"\0") + table + content


def _adapted(primaries: tuple[float, ...]) -> Float[np.ndarray, "3 3"]:
    """Return XYZ of the full red, green and blue primaries (columns), adapted to D50."""
    white, *colors = (
        np.array([x / y, 1, (1 - x - y) / y]) for x, y in np.reshape(primaries, (4, 2))
    )
    colors = np.stack(colors, axis=1)
    light = colors * np.linalg.solve(colors, white)
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.linalg.solve(_BRADFORD, scale[:, None] * (_BRADFORD @ light))


def _xyz(values: Float[np.ndarray, " 3"]) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *map(_fixed, values))


def _fixed(value: float) -> int:
    return round(float(value) * 65536)
