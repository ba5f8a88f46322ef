"""The size of a picture as it is seen, from its header alone."""

import io
import struct
import zlib

import pytest
from PIL import Image, ImageOps

from lidit_jax.errors import LiditError
from lidit_jax.io.image_files import decode, read_header


def stored(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(stream, kind, exif=exif)
    return stream.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def with_last_chunk(name: bytes, content: bytes) -> bytes:
    """A PNG of 40 x 30 pixels with a chunk behind them."""
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(stream, "png")
    png = stream.getvalue()
    return png[:-12] + chunk(name, content) + png[-12:]


def size(content: bytes) -> tuple[int, int]:
    return read_header(io.BytesIO(content), "x")[:2]


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_knows_the_upright_size(kind, orientation):
    content = stored(kind, orientation)
    assert size(content) == ((30, 40) if orientation > 4 else (40, 30))
    assert decode(io.BytesIO(content), "x").size == size(content)


def test_a_png_may_say_so_after_its_pixels():
    exif = Image.Exif()
    exif[274] = 6
    xmp = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'
    for name, content in ((b"eXIf", exif.tobytes()[6:]), (b"iTXt", xmp)):
        png = with_last_chunk(name, content)
        assert size(png) == (30, 40), name
        assert ImageOps.exif_transpose(Image.open(io.BytesIO(png))).size == (30, 40), name


def test_what_cannot_be_decoded_for_its_metadata_is_no_readable_header(tmp_path):
    damaged = with_last_chunk(b"eXIf", b"nonsense")
    for read in (read_header, decode):
        with pytest.raises(LiditError, match="x is not a readable image"):
            read(io.BytesIO(damaged), "x")


def test_no_pixels_are_needed():
    assert size(with_last_chunk(b"tEXt", b"a\0b")[:60]) == (40, 30)
