"""The pictures that `lidit sample` begins from."""

import numpy as np
import pytest
from PIL import Image

from lidit_jax.commands.sample_canvas import read_image, read_mask
from lidit_jax.errors import LiditError

RED = (220, 30, 30)


def test_a_transparent_picture_lies_on_white_as_in_training(tmp_path):
    picture = Image.new("RGBA", (16, 16))
    picture.paste(RED, (4, 4, 12, 12))
    picture.save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png", "--image", None, 8)
    assert tuple(image[0, 0]) == (255, 255, 255)
    assert tuple(image[8, 8]) == RED


def test_sides_are_cropped_to_steps_or_to_the_size_that_is_asked_for(tmp_path):
    Image.new("RGB", (37, 21)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", "--image", None, 8).shape == (16, 32, 3)
    assert read_image(tmp_path / "x.png", "--image", (24, 8), 8).shape == (24, 8, 3)
    with pytest.raises(LiditError, match=r"--image=.*x\.png is smaller than 64x64: name a larger"):
        read_image(tmp_path / "x.png", "--image", None, 64)


LEFT = np.tile(np.arange(8) < 4, (8, 1))
SHADES = np.where(LEFT, 255, 0).astype(np.uint8)
COLORS = np.dstack([SHADES] * 3)


@pytest.mark.parametrize(
    "pixels",
    [
        SHADES,
        COLORS,
        SHADES.astype(np.uint16) * 257,
        np.dstack([COLORS, np.full_like(SHADES, 255)]),
        np.dstack([np.zeros_like(COLORS), SHADES]),
        np.dstack([np.full_like(COLORS, 255), SHADES]),
    ],
    ids=["gray", "color", "16 bits", "opaque", "black strokes", "white strokes"],
)
def test_a_mask_is_bright_or_opaque_where_the_picture_is_drawn_anew(pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", (8, 8)), LEFT)


READERS = {
    "--image": lambda file: read_image(file, "--image", None, 8),
    "--mask": lambda file: read_mask(file, (8, 8)),
}


@pytest.mark.parametrize(("option", "read"), READERS.items(), ids=READERS.keys())
def test_a_picture_that_cannot_be_read_is_one_line(option, read, tmp_path, monkeypatch):
    file = tmp_path / "x.png"
    Image.new("RGB", (64, 64)).save(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(LiditError, match=rf"^{option}=.*x\.png has 0\.0041 megapixels, the limit"):
        read(file)
    file.write_bytes(b"text")
    with pytest.raises(LiditError, match=rf"^{option}=.* is not a readable image: name another"):
        read(file)
