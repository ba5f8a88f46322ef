"""Images to begin from: one for all prompts or one each, with or without a mask."""

import numpy as np
import pytest

from lidit_jax.errors import LiditError
from lidit_jax.sampling.init_image import init_image

IMAGE = np.full((8, 8, 3), 128, np.uint8)
MASK = np.ones((8, 8), bool)


def test_one_image_and_mask_are_for_all_prompts():
    init = init_image(IMAGE, MASK, None, 3)
    assert init.images.shape == (3, 8, 8, 3)
    assert init.mask.shape == (3, 8, 8)
    part = init.rows([2, 2])
    assert part.images.shape == (2, 8, 8, 3)
    assert part.mask.shape == (2, 8, 8)


def test_a_mask_is_painted_wholly_anew_unless_told_otherwise():
    assert init_image(IMAGE, None, None, 1).strength == 0.6
    assert init_image(IMAGE, MASK, None, 1).strength == 1.0
    assert init_image(IMAGE, MASK, np.float32(0.5), 1).strength == 0.5


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            (np.stack([IMAGE] * 2), None, None),
            "2 of image for 3 prompts: give one, or one per prompt",
        ),
        (
            (IMAGE, np.stack([MASK] * 2), None),
            "2 of mask for 3 prompts: give one, or one per prompt",
        ),
        ((IMAGE, MASK[0], None), "resize the mask"),
        ((IMAGE, None, "0.5"), "strength='0.5': must be a number"),
        ((IMAGE, None, 1.5), "strength 1.5: must be greater than 0 and at most 1"),
    ],
)
def test_mistakes_are_named(arguments, expected):
    with pytest.raises(LiditError, match=expected):
        init_image(*arguments, 3)
