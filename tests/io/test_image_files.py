"""Pictures from files: the same decoder for training, `--image` and `--mask`."""

import io
import pickle
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from lidit_jax.errors import LiditError
from lidit_jax.io import image_files

SAMPLES = Path(__file__).parent / "images"
RED, BLUE = (220, 30, 30), (30, 30, 220)
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""What a camera does to an upright picture that it stores with this Orientation."""


def decoded(file):
    return np.asarray(image_files.on_white(image_files.decode(file)))


def empty_png(file, width, height):
    """A PNG that promises pixels and has none."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return file


def test_ordinary_pictures_are_read_as_in_version_0_1_to_the_bit(tmp_path):
    """What was prepared from them stays valid."""
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 4), np.uint8)
    for channels, suffix in ((3, "png"), (3, "jpg"), (3, "webp"), (4, "png")):
        file = tmp_path / f"{channels}.{suffix}"
        Image.fromarray(noise[..., :channels]).save(file)
        with Image.open(file) as picture:
            upright = ImageOps.exif_transpose(picture)
            if channels == 4:
                white = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(white, upright)
            before = ImageOps.fit(upright.convert("RGB"), (32, 32), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(image_files.read_fitted(file, (32, 32)).image, before)


def test_sixteen_bits_of_gray_fill_the_range_of_eight():
    image = decoded(SAMPLES / "gray16.png")
    assert image.mean() == 127.5
    assert (image[:, 0] == 0).all()
    assert (image[:, -1] == 255).all()


def test_what_is_transparent_is_white():
    image = decoded(SAMPLES / "transparent_logo.png")
    assert tuple(image[0, 0]) == (255, 255, 255)
    assert tuple(image[image.shape[0] // 2, image.shape[1] // 2]) == RED


@pytest.mark.parametrize("mode", ["LA", "P", "RGBA", "RGB"])
def test_every_way_to_be_transparent(mode, tmp_path):
    options = {} if mode in ("LA", "RGBA") else {"transparency": (9, 9, 9) if mode == "RGB" else 0}
    color = {"LA": (9, 0), "RGBA": (9, 9, 9, 0), "RGB": (9, 9, 9), "P": 0}[mode]
    Image.new(mode, (8, 8), color).save(tmp_path / "x.png", **options)
    assert (decoded(tmp_path / "x.png") == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright_reduced_or_not(orientation, tmp_path):
    upright = Image.new("RGB", (512, 256), RED)
    upright.paste(BLUE, (128, 0, 256, 128))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(STORED[orientation]) if orientation in STORED else upright
    stored.save(tmp_path / "x.jpg", exif=exif, quality=95)
    for side in (16, 128):
        image = image_files.read_fitted(tmp_path / "x.jpg", (side, side)).image
        # Blocks of one color: JPEG rounds brightness and two color differences, 1.8 steps a part.
        np.testing.assert_allclose(image[side // 4, side // 4], BLUE, atol=4)
        for row, column in ((3, 1), (1, 3), (3, 3)):
            np.testing.assert_allclose(image[row * side // 4, column * side // 4], RED, atol=4)


def test_of_an_animation_the_first_frame_counts(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, BLUE)]
    for name in ("x.gif", "x.webp", "x.png", "x.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert tuple(decoded(tmp_path / name)[4, 4]) == RED


def test_a_large_jpeg_is_reduced_and_stays_twice_as_large_as_the_result():
    header = image_files.Header(6000, 4000, scalable=True, converted=False)
    expected = {250: 8, 256: 4, 1000: 2, 1001: 1, 8000: 1}
    assert {side: image_files.reduction(header, (side, side)) for side in expected} == expected
    assert image_files.reduction(header, (250, 375)) == 8
    assert image_files.reduction(header, (250, 376)) == 4
    assert image_files.reduction(header._replace(scalable=False), (8, 8)) == 1


@pytest.mark.parametrize("size", [(2048, 1024), (1037, 1571)])
def test_a_reduced_jpeg_differs_from_the_whole_one_by_rounding(size, tmp_path):
    """Sides that 8 does not divide would shift the picture if its last column were taken whole.

    Waves of 64 pixels and more pass either way without loss. Rounding to whole numbers, half a step
    each, happens to the three values of a JPEG's pixel (which count 1 + 1.8 times at most), to its
    red, green and blue, and to the result: 2 steps either way, 4 between the two. The JPEG's own
    quantization is the same in both.
    """
    y, x = np.mgrid[: size[1], : size[0]] / 64
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1) * 100 + 128
    file = tmp_path / "x.jpg"
    Image.fromarray(waves.astype(np.uint8)).save(file, quality=95, subsampling=0)
    with Image.open(file) as picture:
        whole = ImageOps.fit(picture, (128, 128), Image.Resampling.LANCZOS)
    reduced = image_files.read_fitted(file, (128, 128)).image.astype(int)
    assert np.abs(reduced - np.asarray(whole)).max() <= 4


def as_before(file, side):
    """The middle square of a JPEG as versions before aspect ratios read it, reduced."""
    with Image.open(file) as picture:
        whole = picture.size
        factor = min(whole) // (2 * side)
        picture.draft(None, (whole[0] // factor, whole[1] // factor))
        width, height = whole[0] / factor, whole[1] / factor
        edge = min(width, height)
        left, top = (width - edge) / 2, (height - edge) / 2
        box = (left, top, left + edge, top + edge)
        small = picture.resize((side, side), Image.Resampling.LANCZOS, box=box)
        small.info = picture.info
        return np.asarray(ImageOps.exif_transpose(small))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_squares_of_reduced_jpegs_are_those_of_version_0_1_to_the_bit(orientation, tmp_path):
    """What was prepared from them stays valid."""
    noise = np.random.default_rng(0).integers(0, 256, (275, 389, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "x.jpg"
    Image.fromarray(noise).save(file, exif=exif)
    for side in (17, 32, 64):  # 8, 4 and 2 times smaller
        image = image_files.read_fitted(file, (side, side)).image
        np.testing.assert_array_equal(image, as_before(file, side))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("place", [(0.5, 0.5), (0.0, 1.0), (0.8, 0.3)])
def test_any_part_of_any_shape_reduced_or_not(orientation, place, tmp_path):
    """Sides that 8 does not divide, so that a part of a pixel may lie at either end.

    The tolerance is that of `test_a_reduced_jpeg_differs_from_the_whole_one_by_rounding`.
    """
    y, x = np.mgrid[:523, :373] / 64
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1) * 100 + 128
    upright = Image.fromarray(waves.astype(np.uint8))
    stored = upright.transpose(STORED[orientation]) if orientation in STORED else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "x.jpg", exif=exif, quality=95, subsampling=0)
    with Image.open(tmp_path / "x.jpg") as picture:
        whole = ImageOps.exif_transpose(picture)
    for size in ((40, 60), (64, 32), (200, 300)):
        image, box, _ = image_files.read_fitted(tmp_path / "x.jpg", size, place)
        expected = ImageOps.fit(whole, size[::-1], Image.Resampling.LANCZOS, centering=place[::-1])
        assert np.abs(image.astype(int) - np.asarray(expected)).max() <= 4
        cut = (523 - (box.bottom - box.top), 373 - (box.right - box.left))
        np.testing.assert_allclose((box.top, box.left), np.multiply(cut, place), atol=1e-9)


def test_a_picture_is_read_from_memory_as_from_its_file(tmp_path):
    file = tmp_path / "x.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)).save(file)
    ours = image_files.read_fitted(io.BytesIO(file.read_bytes()), (16, 24), named="shard 1, cat")
    np.testing.assert_array_equal(ours.image, image_files.read_fitted(file, (16, 24)).image)
    with pytest.raises(
        image_files.UnreadableImageError, match=r"^shard 1, cat is not a readable"
    ) as e:
        image_files.read_fitted(io.BytesIO(b"text"), (16, 24), named="shard 1, cat")
    assert not e.value.too_large


def test_a_limit_of_megapixels(tmp_path):
    file = empty_png(tmp_path / "x.png", 3000, 1000)
    with pytest.raises(image_files.UnreadableImageError) as error:
        image_files.read_fitted(file, (8, 8), most_megapixels=2.5)
    assert str(error.value) == (f"{file} has 3 megapixels, the limit is 2.5: scale it down")
    again = pickle.loads(pickle.dumps(error.value))
    assert again.too_large
    assert str(again) == str(error.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_header_has_the_sides_of_the_upright_picture(suffix, tmp_path):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = tmp_path / f"{orientation}.{suffix}"
        Image.new("RGB", (40, 30)).save(file, exif=exif)
        with file.open("rb") as stream:
            header = image_files.read_header(stream, file)
        assert (header.width, header.height) == image_files.decode(file).size


def test_a_header_tells_what_decoding_will_do(tmp_path):
    def header(file):
        with file.open("rb") as stream:
            return image_files.read_header(stream, file)

    Image.new("RGB", (40, 30)).save(tmp_path / "x.jpg")
    assert header(tmp_path / "x.jpg") == (40, 30, True, False)
    assert header(SAMPLES / "transparent_logo.png")[2:] == (False, False)
    assert header(SAMPLES / "gray16.png").converted
    assert header(SAMPLES / "display_p3.png").converted
    with pytest.raises(LiditError, match="my picture is not a readable image"):
        image_files.read_header(io.BytesIO(b"text"), "my picture")


def test_a_truncated_a_false_and_a_missing_file_are_refused_by_name(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for suffix in ("png", "jpg", "tif", "webp"):
        file = tmp_path / f"x.{suffix}"
        Image.fromarray(noise).save(file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(LiditError, match=rf"x\.{suffix} is not a readable image: replace"):
            image_files.read_fitted(file, (16, 16))
    file.write_bytes(b"text")
    with pytest.raises(LiditError, match=r"--image=x is not a readable image: name another \("):
        image_files.decode(file, "--image=x", "name another")
    with pytest.raises(LiditError, match=r"none\.png .*\(No such file or directory\)$"):
        image_files.decode(tmp_path / "none.png")


def test_a_picture_too_large_for_any_memory_is_told_by_its_megapixels(tmp_path):
    file = empty_png(tmp_path / "x.png", 20_000, 10_000)
    with pytest.raises(LiditError) as error:
        image_files.decode(file)
    assert str(error.value) == (f"{file} has 200 megapixels, the limit is 179: scale it down")


def test_a_large_picture_that_is_read_warns_of_nothing(tmp_path):
    """Pillow warns of more than 89 megapixels, on stderr and with a line of its source."""
    file = empty_png(tmp_path / "x.png", 10_000, 10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with file.open("rb") as stream:
            assert image_files.read_header(stream, file)[:2] == (10_000, 10_000)
        with pytest.raises(LiditError, match="not a readable image"):  # it has no pixels
            image_files.decode(file)
        with pytest.raises(LiditError, match="not a readable image"):
            image_files.read_fitted(file, (16, 16))


def test_every_suffix_that_pillow_decodes_and_none_that_it_only_recognizes():
    known = image_files.suffixes()
    usual = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif", ".jp2"}
    assert usual <= known
    assert not known & {".psd", ".eps", ".h5", ".mpg", ".pdf", ".wmf", ".heic", ".txt"}
