"""Damaged pictures, decoded as far as they go: as by Pillow's own switch, which all threads see."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from lidit_jax.errors import LiditError
from lidit_jax.io import image_files, image_repair
from tests.io.test_image_files import empty_png

SIDE = 96
NOISE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def saved(kind, image=NOISE, **options):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


def read(content, side=SIDE, **options):
    return image_files.read_fitted(io.BytesIO(content), (side, side), named="x", **options)


def halved(content):
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("kind", "options", "missing"),
    [
        ("JPEG", {}, 128),
        ("JPEG", {"progressive": True}, None),
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
    ],
    ids=["JPEG", "progressive JPEG", "PNG", "BMP", "TIFF"],
)
def test_what_is_there_is_that_of_the_whole_picture(kind, options, missing, monkeypatch):
    """Of a progressive JPEG all lines are there, but not all scans; a BMP begins at the bottom."""
    content = saved(kind, **options)
    with pytest.raises(LiditError, match="x is not a readable image"):
        read(halved(content))
    with pytest.raises(LiditError, match="--image=x is not a readable image"):
        image_files.decode(io.BytesIO(halved(content)), "--image=x")
    found = read(halved(content), repair=True)
    assert "truncated" in found.damage
    with monkeypatch.context() as patched:
        patched.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        with Image.open(io.BytesIO(halved(content))) as image:
            np.testing.assert_array_equal(found.image, np.asarray(image))
    if missing is not None:
        whole, ours = (
            image[::-1] if kind == "BMP" else image for image in (read(content).image, found.image)
        )
        # Well before the damage: a JPEG's colors are spread from one block of 16 lines to the next.
        np.testing.assert_array_equal(ours[: SIDE // 4], whole[: SIDE // 4])
        assert (ours[-SIDE // 3 :] == missing).all()


def test_a_damaged_middle_costs_what_follows():
    content = bytearray(saved("PNG"))
    content[len(content) // 2] ^= 255
    found = read(bytes(content), repair=True)
    assert found.damage
    np.testing.assert_array_equal(found.image[: SIDE // 3], NOISE[: SIDE // 3])


def test_a_reduced_jpeg_is_repaired_too():
    large = np.kron(NOISE, np.ones((8, 8, 1), np.uint8))
    content = saved("JPEG", large)
    whole, found = read(content, 48), read(halved(content), 48, repair=True)
    assert (whole.box, whole.damage) == (found.box, "")
    np.testing.assert_array_equal(found.image[:16], whole.image[:16])
    assert (found.image[-16:] == 128).all()


def test_an_intact_picture_is_the_same(tmp_path):
    for kind in ("JPEG", "PNG"):
        file = tmp_path / f"x.{kind.lower()}"
        file.write_bytes(saved(kind))
        plain, repaired = (image_files.read_fitted(file, (32, 32), repair=r) for r in (False, True))
        np.testing.assert_array_equal(plain.image, repaired.image)
        assert repaired.damage == ""
    file.write_bytes(halved(saved("PNG")))
    assert image_files.read_fitted(file, (32, 32), repair=True).damage


@pytest.mark.parametrize("content", [b"text", saved("JPEG")[:300], saved("WEBP")[:200]])
def test_what_has_no_pixel_stays_unreadable(content):
    with pytest.raises(LiditError, match="x is not a readable image: replace or remove it"):
        read(content, repair=True)


def test_neither_an_empty_nor_a_large_one_is_repaired(tmp_path):
    file = empty_png(tmp_path / "x.png", 64, 64)
    with pytest.raises(LiditError, match="not a readable image"):
        image_files.read_fitted(file, (16, 16), repair=True)
    with pytest.raises(image_files.UnreadableImageError, match="megapixels") as error:
        image_files.read_fitted(file, (16, 16), most_megapixels=0.001, repair=True)
    assert error.value.too_large


def test_loading_twice_changes_nothing_and_the_switch_of_all_threads_is_left_alone():
    with Image.open(image_repair.with_end(io.BytesIO(halved(saved("PNG"))))) as image:
        image_repair.load_partly(image)
        first = np.asarray(image).copy()
        image_repair.load_partly(image)
        np.testing.assert_array_equal(np.asarray(image), first)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
