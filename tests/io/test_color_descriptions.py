"""Colors described without a profile: PNG's cICP, gAMA and cHRM, and AVIF's nclx."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from lidit_jax.errors import LiditError
from lidit_jax.io import image_files
from lidit_jax.io.color_descriptions import _PRIMARIES, make_profile
from lidit_jax.io.image_colors import has_other_colors, to_srgb

SHADES = [(200, 60, 60), (60, 160, 60), (60, 60, 160), (128, 128, 128), (250, 250, 250), (30,) * 3]
P3, BT2020 = _PRIMARIES[12], _PRIMARIES[9]
P3_TO_SRGB = np.array([[1.2249, -0.2249, 0], [-0.0420, 1.0420, 0], [-0.0197, -0.0786, 1.0983]])
SRGB_PRIMARIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def png(file, *chunks, mode="RGB", profile=None):
    """The shades side by side, with chunks behind the header."""
    stream = io.BytesIO()
    shades = np.array([SHADES], np.uint8)
    picture = Image.fromarray(shades if mode == "RGB" else shades[..., 0])
    picture.save(stream, "PNG", icc_profile=profile)
    content = stream.getvalue()
    new = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    file.write_bytes(content[:33] + new + content[33:])
    return file


def shown(file):
    return np.asarray(image_files.decode(file)).astype(int)[0]


def gamma(value):
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def chromaticities(numbers):
    return b"cHRM", struct.pack(">8I", *numbers)


def cicp(primaries, transfer, full_range=1):
    return b"cICP", bytes([primaries, transfer, 0, full_range])


def light(number):
    """Of sRGB's curve, by its definition."""
    value = number / 255
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def number(value):
    return 255 * (value * 12.92 if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("exponent", [1.0, 1.8, 2.8])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_gamma_says_how_bright_a_number_is(exponent, mode, tmp_path):
    """Within 1: both curves are exact, and the result rounds."""
    image = shown(png(tmp_path / "x.png", gamma(1 / exponent), mode=mode))
    wanted = [[number((n / 255) ** exponent) for n in shade] for shade in SHADES]
    wanted = wanted if mode == "RGB" else [[shade[0]] * 3 for shade in wanted]
    np.testing.assert_allclose(image, wanted, atol=1)


@pytest.mark.parametrize(
    "chunks",
    [
        (gamma(0.45455),),
        (gamma(0.45455), chromaticities(SRGB_PRIMARIES)),
        (gamma(1.0), (b"sRGB", b"\0")),
        (gamma(1.0), cicp(1, 13)),
        (cicp(2, 2),),
        (gamma(0),),
        (gamma(0.45455), chromaticities((0,) * 8)),
    ],
    ids=["gamma of sRGB", "all of sRGB", "sRGB", "cICP", "unspecified", "no gamma", "no colors"],
)
def test_srgb_and_nonsense_leave_the_numbers_as_they_are(chunks, tmp_path):
    file = png(tmp_path / "x.png", *chunks)
    np.testing.assert_array_equal(shown(file), SHADES)
    with file.open("rb") as stream:
        assert not image_files.read_header(stream, file).converted


@pytest.mark.parametrize(
    "chunk", [cicp(12, 13), chromaticities([round(1e5 * x) for x in P3])], ids=["cICP", "cHRM"]
)
def test_display_p3_in_numbers_becomes_srgb(chunk, tmp_path):
    """Within 1 of the matrix that is published for linear light, as the result rounds."""
    image = shown(png(tmp_path / "x.png", chunk))
    linear = np.vectorize(light)(np.array(SHADES)) @ P3_TO_SRGB.T
    np.testing.assert_allclose(image, np.vectorize(number)(np.clip(linear, 0, 1)), atol=1)


def test_numbers_of_cicp_count_more_than_a_profile_and_a_profile_more_than_gamma(tmp_path):
    wide = make_profile(P3, 0.0)
    by_profile = shown(png(tmp_path / "x.png", profile=wide))
    assert (by_profile != SHADES).any()
    both = png(tmp_path / "x.png", gamma(1.0), profile=wide)
    np.testing.assert_array_equal(shown(both), by_profile)
    np.testing.assert_array_equal(shown(png(both, cicp(1, 13), profile=wide)), SHADES)


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        (cicp(9, 16), r"has high dynamic range \(PQ\)"),
        (cicp(9, 18), r"has high dynamic range \(HLG\)"),
        (cicp(77, 13), r"color space is not supported \(cICP 77, 13\)"),
        (cicp(1, 13, 0), "limited range"),
    ],
)
def test_what_cannot_be_followed_is_refused(chunk, expected, tmp_path):
    file = png(tmp_path / "x.png", chunk)
    for read in (image_files.decode, lambda file: image_files.read_fitted(file, (8, 8))):
        with pytest.raises(LiditError, match=rf"x\.png is not a readable image: .*{expected}"):
            read(file)
    with file.open("rb") as stream, pytest.raises(LiditError, match=expected):
        image_files.read_header(stream, file)


@pytest.mark.parametrize("codes", [(1, 13), (9, 16), (12, 13)], ids=str)
def test_avif_says_it_in_a_box(codes, tmp_path):
    """Red of a wide gamut is more red in sRGB, and gray is the same gray."""
    file = tmp_path / "x.avif"
    picture = Image.fromarray(np.array([SHADES], np.uint8)).resize((96, 16), 0)
    picture.save(file, quality=95, subsampling="4:4:4")
    before = shown(file)
    content = bytearray(file.read_bytes())
    place = content.index(b"nclx") + 4
    content[place : place + 4] = struct.pack(">HH", *codes)
    file.write_bytes(content)
    if codes == (1, 13):
        np.testing.assert_array_equal(shown(file), before)
    elif codes == (9, 16):
        with pytest.raises(LiditError, match="high dynamic range"):
            shown(file)
    else:
        red, gray = shown(file)[8], shown(file)[8 + 48]
        assert red[0] > before[8][0] + 5
        np.testing.assert_allclose(gray, before[8 + 48], atol=1)


def test_a_profile_that_is_made_is_one():
    """sRGB's own numbers change nothing; white stays white, whatever its color."""
    picture = Image.new("RGB", (4, 4), (10, 120, 240))
    picture.info["icc_profile"] = make_profile(_PRIMARIES[1], 0.0)
    assert not has_other_colors(picture)
    for primaries in (BT2020, _PRIMARIES[11]):
        white = Image.new("RGB", (4, 4), "white")
        white.info["icc_profile"] = make_profile(primaries, 2.2)
        np.testing.assert_allclose(to_srgb(white).getpixel((0, 0)), 255, atol=1)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(make_profile(P3, 1.8)))
    assert profile.profile.xcolor_space == "RGB "
