"""Sizes that a model can draw, and those at which it is out of its depth."""

import numpy as np
import pytest

from lidit_jax.config.data_config import DataConfig
from lidit_jax.config.data_settings import BucketSettings
from lidit_jax.data.buckets import Buckets
from lidit_jax.errors import LiditError
from lidit_jax.sampling.sizes import far_from_training, height_and_width, natural_size


@pytest.mark.parametrize(
    "size", [(16, 16), [16, 16], np.array([16, 16]), 16, np.int32(16)], ids=repr
)
def test_a_size_is_a_side_or_a_pair(size):
    sides = height_and_width(size)
    assert sides == (16, 16)
    assert {type(side) for side in sides} == {int}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (16.0, "size=16.0: must be a whole number"),
        ((16, 16, 3), r"size=\(16, 16, 3\): must be a side, or \(height, width\), in pixels"),
        ("16x16", "size='16x16': must be a whole number"),
    ],
)
def test_other_things_are_no_size(size, expected):
    with pytest.raises(LiditError, match=expected):
        height_and_width(size)


def test_sizes_far_from_training_are_told():
    far = far_from_training((512, 512), 48)
    assert far.startswith("size 512x512 is 10.7 times the 48x48 of training: expect shapes that")
    assert "size 32x16 is 1/2.8 of the 64x64" in far_from_training((16, 32), 64)
    assert "\n" not in far


@pytest.mark.parametrize("size", [(48, 48), (96, 96), (24, 24), (96, 48)])
def test_sizes_near_training_are_not(size):
    assert far_from_training(size, 48) is None


def test_an_aspect_is_drawn_in_the_shape_that_it_was_trained_in():
    config = DataConfig(image_size=512)
    shapes = Buckets(512, 16, config.buckets).shapes
    for height, width in shapes:
        assert natural_size((width, height), config, 16) == (height, width)
    wide = natural_size((16, 9), config, 16)
    assert wide in shapes
    assert 1.6 < wide[1] / wide[0] < 1.95


def test_other_aspects_have_the_area_of_training():
    squares = DataConfig(image_size=64, buckets=BucketSettings(shapes=1))
    assert natural_size((16, 9), squares, 8) == (48, 88)
    assert natural_size((1, 1), squares, 8) == (64, 64)
    height, width = natural_size((4, 1), DataConfig(image_size=512), 16)
    assert width / height == pytest.approx(4, rel=0.07)
    assert width * height == pytest.approx(512 * 512, rel=0.07)
