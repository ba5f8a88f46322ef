"""Boxes of crops: the largest part of a shape, upright and as files store it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lidit_jax.io.image_crops import Box, crop_box, orientation, stored_box, turned

SIDES = st.integers(1, 5000)


@given(SIDES, SIDES, SIDES, SIDES, st.floats(0, 1), st.floats(0, 1))
def test_a_crop_has_the_shape_lies_inside_and_touches_two_sides(height, width, h, w, down, right):
    """Each number is rounded a few times, by half of 2^-52 of at most 5,000 pixels; 5e-9 for the
    ratio, which is a quotient of sides from 1/5,000 pixel."""
    box = crop_box((height, width), (h, w), (down, right))
    high, wide = box.bottom - box.top, box.right - box.left
    rounding = 1e-11
    assert -rounding <= box.left
    assert box.right <= width + rounding
    assert -rounding <= box.top
    assert box.bottom <= height + rounding
    np.testing.assert_allclose(high * w, wide * h, rtol=1e-6)
    assert abs(high - height) < rounding or abs(wide - width) < rounding


@pytest.mark.parametrize("size", [(20, 20), (20, 31), (31, 20), (7, 30)])
def test_a_crop_is_that_of_pillow(size):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (67, 101, 3), np.uint8))
    for place in ((0.5, 0.5), (0.0, 1.0), (0.25, 0.75)):
        ours = picture.resize(
            size[::-1], Image.Resampling.LANCZOS, box=crop_box((67, 101), size, place)
        )
        theirs = ImageOps.fit(
            picture, size[::-1], Image.Resampling.LANCZOS, centering=(place[1], place[0])
        )
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("way", range(1, 9))
def test_a_box_of_the_stored_picture_shows_the_part_of_the_upright_one(way, tmp_path):
    stored = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = way
    stored.save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as picture:
        assert orientation(picture) == way
        upright = ImageOps.exif_transpose(picture)
        assert upright.size == turned(way, picture.size)
        box = Box(3, 5, 12, 20)
        part = picture.crop(stored_box(box, way, (30, 40)))
        part.info = picture.info
        np.testing.assert_array_equal(ImageOps.exif_transpose(part), upright.crop(box))


def test_an_orientation_that_does_not_exist_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 9
    Image.new("RGB", (4, 3)).save(tmp_path / "x.jpg", exif=exif)
    with Image.open(tmp_path / "x.jpg") as picture:
        assert orientation(picture) == 1
