"""Sizes that a model can draw, and those at which it is out of its depth."""

import numpy as np
import pytest

from lidit_jax.errors import LiditError
from lidit_jax.sampling.sizes import far_from_training, height_and_width


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
