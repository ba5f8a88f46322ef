"""Conversion of images with embedded profiles (Display P3, CMYK, gray) to sRGB."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image, ImageCms

_SRGB = ImageCms.createProfile("sRGB")
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION
_SAME = 2
"""Largest rounding difference of sRGB profiles from sRGB, on a scale of 255."""


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert an image of 8 bits per channel to sRGB, mode "RGB", or "RGBA" if transparent.

    Pixel values are interpreted by the embedded profile. They are unchanged without a profile, or
    with one that is broken, has other channels than the image, or is sRGB; an image that already
    has the mode is then returned itself. Conversion is relative colorimetric with black point
    compensation, as in most programs.
    """
    transparent = image.has_transparency_data
    transform = _transform_of(image)
    if transform is None:
        mode = "RGBA" if transparent else "RGB"
        # A copy of the decoded image would take a sixth of the time of reading a photo.
        return image if image.mode == mode else image.convert(mode)
    clear = image.convert("RGBA") if transparent else None
    # Palettes with transparency are converted by way of RGBA, to avoid Pillow's warning.
    colors = (clear or image).convert(transform.input_mode)
    converted = ImageCms.applyTransform(colors, transform)
    assert converted is not None  # None only for in-place conversion
    if clear is not None:
        converted.putalpha(clear.getchannel("A"))
    return converted


def has_other_colors(image: Image.Image) -> bool:
    """Return whether an image's header specifies other colors than sRGB."""
    return _transform_of(image) is not None


def _transform_of(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    if image.mode == "LAB":
        return _lab_transform()
    profile = image.info.get("icc_profile")
    if not profile:
        return None
    gray = image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16")
    return _transform(bytes(profile), "CMYK" if image.mode == "CMYK" else "RGB", gray)


@functools.cache
def _lab_transform() -> ImageCms.ImageCmsTransform:
    lab = ImageCms.createProfile("LAB")
    return ImageCms.buildTransform(lab, _SRGB, "LAB", "RGB", _INTENT, _FLAGS)


@functools.lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str, gray: bool) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a profile to sRGB; None if pixel values stay unchanged."""
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
    """Return whether a transform is the identity, tested on a color grid: names are unreliable."""
    ramp = np.linspace(0, 255, 16).round().astype(np.uint8)
    if mode == "L":
        colors = ramp[None]
    else:
        colors = np.stack(np.meshgrid(ramp, ramp, ramp), axis=-1).reshape(16, -1, 3)
    before = Image.fromarray(colors)
    after = np.asarray(ImageCms.applyTransform(before, transform), np.int16)
    return int(np.abs(after - np.asarray(before.convert("RGB"), np.int16)).max()) <= _SAME
