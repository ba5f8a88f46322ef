"""Colors of pictures in sRGB, which embedded profiles (Display P3, CMYK, gray) are converted to."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image, ImageCms

_SRGB = ImageCms.createProfile("sRGB")
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
_SAME = 2
"""Steps of 255 by which sRGB's own profiles, of several makers, differ from it by rounding."""


def to_srgb(picture: Image.Image) -> Image.Image:
    """A picture of 8 bits a channel as sRGB: mode "RGB", or "RGBA" where anything is transparent.

    The embedded profile decides what the numbers mean. A profile that is broken, of other channels
    than the picture's, or sRGB itself leaves them as they are; so does a picture without one.
    Conversion is relative colorimetric with black point compensation, as in most programs.
    """
    transparent = picture.has_transparency_data
    transform = _transform_of(picture)
    if transform is None:
        return picture.convert("RGBA" if transparent else "RGB")
    clear = picture.convert("RGBA") if transparent else None
    # A palette with transparency loses it without a warning only on the way over RGBA.
    colors = (clear or picture).convert(transform.input_mode)
    converted = ImageCms.applyTransform(colors, transform)
    assert converted is not None  # it is only when it replaces the picture
    if clear is not None:
        converted.putalpha(clear.getchannel("A"))
    return converted


def has_other_colors(picture: Image.Image) -> bool:
    """Whether the numbers of a picture mean other colors than sRGB's, as its header says."""
    return _transform_of(picture) is not None


def _transform_of(picture: Image.Image) -> ImageCms.ImageCmsTransform | None:
    if picture.mode == "LAB":
        return _lab_transform()
    profile = picture.info.get("icc_profile")
    if not profile:
        return None
    gray = picture.mode in ("1", "L", "LA", "La", "I", "F") or picture.mode.startswith("I;16")
    return _transform(bytes(profile), "CMYK" if picture.mode == "CMYK" else "RGB", gray)


@functools.cache
def _lab_transform() -> ImageCms.ImageCmsTransform:
    lab = ImageCms.createProfile("LAB")
    return ImageCms.buildTransform(lab, _SRGB, "LAB", "RGB", _INTENT, _FLAGS)


@functools.lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str, gray: bool) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None where the numbers stay as they are."""
    try:
        read = ImageCms.core.profile_frombytes(profile)
        space = read.xcolor_space.strip()
        if space == "GRAY" and gray:
            mode = "L"
        elif space != mode:
            return None
        opened = ImageCms.ImageCmsProfile(read)
        transform = ImageCms.buildTransform(opened, _SRGB, mode, "RGB", _INTENT, _FLAGS)
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None
    return None if mode != "CMYK" and _changes_nothing(transform, mode) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Tries colors all over the space: names of profiles cannot be trusted."""
    ramp = np.linspace(0, 255, 16).round().astype(np.uint8)
    if mode == "L":
        colors = ramp[None]
    else:
        colors = np.stack(np.meshgrid(ramp, ramp, ramp), axis=-1).reshape(16, -1, 3)
    before = Image.fromarray(colors)
    after = np.asarray(ImageCms.applyTransform(before, transform), np.int16)
    return int(np.abs(after - np.asarray(before.convert("RGB"), np.int16)).max()) <= _SAME
