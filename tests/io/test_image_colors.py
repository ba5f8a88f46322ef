"""Embedded profiles are followed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from lidit_jax.io.image_colors import has_other_colors, to_srgb

WIDE = Path(__file__).parent / "images" / "display_p3.png"
SHOWN = [(219, 37, 49), (0, 185, 45), (51, 80, 209), (215, 191, 0), (129, 129, 129), (240,) * 3]
"""Its six patches in sRGB."""
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def wide():
    with Image.open(WIDE) as picture:
        picture.load()
    return picture


def tagged(mode, color, profile):
    picture = Image.new(mode, (4, 4), color)
    picture.info["icc_profile"] = profile
    return picture


def test_a_wide_gamut_becomes_srgb(wide):
    """Within 2: curves of eight bits, their product and the result each round by half a step."""
    image = np.asarray(to_srgb(wide))
    patch = image.shape[1] // 6
    centers = image[image.shape[0] // 2, patch // 2 :: patch]
    np.testing.assert_allclose(centers, SHOWN, atol=2)
    assert has_other_colors(wide)


@pytest.mark.parametrize("mode", ["P", "RGBA", "RGB"])
def test_palettes_and_transparent_pictures_have_profiles_too(mode, wide):
    picture = Image.new("RGBA", (4, 4), (200, 60, 60, 100)).convert(mode)
    picture.info["icc_profile"] = wide.info["icc_profile"]
    expected = SHOWN[0] if mode == "RGB" else (*SHOWN[0], 100)
    np.testing.assert_allclose(to_srgb(picture).getpixel((1, 1)), expected, atol=2)


def test_srgb_leaves_the_numbers_as_they_are():
    rng = np.random.default_rng(0)
    for channels in (3, 4):
        picture = Image.fromarray(rng.integers(0, 256, (16, 16, channels), np.uint8))
        picture.info["icc_profile"] = SRGB
        assert not has_other_colors(picture)
        np.testing.assert_array_equal(np.asarray(to_srgb(picture)), np.asarray(picture))
    assert to_srgb(tagged("L", 33, SRGB)).getpixel((0, 0)) == (33, 33, 33)


@pytest.mark.parametrize("profile", [b"nonsense" * 30, b"", SRGB[: len(SRGB) // 2]])
def test_a_broken_profile_counts_as_none(profile):
    assert to_srgb(tagged("RGB", (10, 20, 30), profile)).getpixel((0, 0)) == (10, 20, 30)


def test_a_profile_of_other_channels_counts_as_none(wide):
    picture = tagged("CMYK", (0, 255, 255, 0), wide.info["icc_profile"])
    assert to_srgb(picture).getpixel((0, 0)) == (255, 0, 0)


def test_lab_has_colors_of_its_own():
    for shade in (0, 255):
        picture = Image.new("LAB", (4, 4), (shade, 128, 128))
        np.testing.assert_allclose(to_srgb(picture).getpixel((0, 0)), (shade,) * 3, atol=1)
