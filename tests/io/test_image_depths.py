"""More than 8 bits a channel: scaled, never clipped."""

import numpy as np
import pytest
from PIL import Image

from lidit_jax.io.image_depths import is_deep, to_eight_bits

RAMP = (np.arange(256) * 257).astype(np.uint16)[None].repeat(8, 0)


def read(file):
    with Image.open(file) as picture:
        assert is_deep(picture)
        return np.asarray(to_eight_bits(picture))


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.jp2", "x.pgm"])
def test_sixteen_bits_in_every_format(name, tmp_path):
    Image.fromarray(RAMP).save(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name), np.arange(256)[None].repeat(8, 0))


@pytest.mark.parametrize("name", ["x.tif", "x.pfm"])
def test_floating_point_numbers_end_at_one(name, tmp_path):
    Image.fromarray((RAMP / 65535).astype(np.float32)).save(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name), np.arange(256)[None].repeat(8, 0))


def test_sixteen_bits_in_a_container_of_thirty_two(tmp_path):
    Image.fromarray(RAMP.astype(np.int32)).save(tmp_path / "x.tif")
    np.testing.assert_array_equal(read(tmp_path / "x.tif"), np.arange(256)[None].repeat(8, 0))


def test_a_tiff_may_begin_with_white(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "x.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "x.tif") as picture:
        assert picture.tag_v2[262] == 0
    np.testing.assert_array_equal(read(tmp_path / "x.tif")[0], np.arange(256)[::-1])


def test_one_shade_may_stand_for_transparency(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "x.png", transparency=257)
    image = read(tmp_path / "x.png")
    np.testing.assert_array_equal(image[0, :3], [(0, 255), (1, 0), (2, 255)])


@pytest.mark.parametrize("values", [RAMP.astype(np.float32), -RAMP.astype(np.int32)])
def test_numbers_whose_white_nobody_knows_are_refused(values, tmp_path):
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(ValueError, match="while black is 0 and white is"):
        read(tmp_path / "x.tif")


def test_eight_bits_are_left_alone():
    picture = Image.new("RGB", (2, 2))
    assert to_eight_bits(picture) is picture
