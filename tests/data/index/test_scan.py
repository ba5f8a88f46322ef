"""What a scan finds of each record, and what it says of records that cannot be used."""

import functools
import io

import numpy as np
import pytest
from PIL import Image

from lidit_jax.data.caption_flags import CaptionFlag
from lidit_jax.data.index.columns import NEAR, Problem
from lidit_jax.data.index.scan import scan_shard
from lidit_jax.data.sources.protocol import ScannedRecord, Shard
from lidit_jax.errors import LiditError
from tests.data.index.tiny_source import Tiny, picture, record


def scan(*records: ScannedRecord, **options):
    return scan_shard(Tiny({"s": list(records)}), Shard("s", "1"), **options)


def turned() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    stream = io.BytesIO()
    Image.new("RGB", (40, 30)).save(stream, "jpeg", exif=exif)
    return stream.getvalue()


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def test_each_record_is_a_row_of_every_column():
    part = scan(
        record(0, picture(8, 9), "  a\n red\ufeff square ", numbers={"score": 0.7}),
        record(1, turned(), None),
    )
    columns = part.columns
    assert len(part) == 2
    assert columns["width"].tolist() == [8, 30], "the size that is seen"
    assert columns["height"].tolist() == [9, 40]
    assert columns["offset"].tolist() == [0, 1]
    assert columns["length"].tolist() == [len(picture(8, 9)), len(turned())]
    assert columns["problem"].tolist() == [0, 0]
    assert part.caption_names == ["caption"]
    assert part.caption_chars.tolist() == [[len("a red square"), 0]]
    assert part.caption_flags.tolist() == [[CaptionFlag.LATIN, CaptionFlag.EMPTY]]
    np.testing.assert_array_equal(part.numbers, [[0.7, np.nan]])
    assert part.keys.tobytes().decode() == "größe/0größe/1"
    assert columns["key_end"].tolist() == [9, 18]
    assert NEAR not in columns


def test_digests_follow_the_key_and_the_content_and_nothing_else():
    first = scan(record(0, picture(8, 9), "a"), record(1, picture(8, 9), "a")).columns
    again = scan(record(0, picture(8, 9), "a", offset=7, numbers={"score": 1.0})).columns
    assert first["name"][0] == again["name"][0] != first["name"][1]
    assert first["content"][0] == again["content"][0] == first["content"][1]
    for other in (record(0, picture(8, 9), "b"), record(0, picture(9, 8), "a")):
        assert scan(other).columns["content"][0] != first["content"][0]


def absent():
    raise FileNotFoundError(2, "No such file or directory")


@pytest.mark.parametrize(
    ("bad", "kind", "message"),
    [
        (record(1, b"", problem="1 has no caption: write 1.txt"), Problem.RECORD, "write 1.txt"),
        (record(1, b"text"), Problem.IMAGE, "größe/1 is not a readable image: replace"),
        (record(1, b""), Problem.IMAGE, "größe/1 is not a readable image"),
        (record(1, b"")._replace(open_image=absent), Problem.IMAGE, "cannot be opened (No such"),
        (record(1, picture(8, 8), "a\ud83d"), Problem.CAPTION, "caption holds half of a character"),
    ],
)
def test_what_is_wrong_with_a_record_is_told_and_the_others_are_scanned(bad, kind, message):
    part = scan(record(0, picture(8, 8)), bad, record(2, picture(8, 8)))
    assert part.columns["problem"].tolist() == [0, kind, 0]
    ((row, told),) = part.problems
    assert row == 1
    assert message in told


def test_pixels_are_not_decoded_unless_asked():
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "png")
    broken = record(0, half(stream.getvalue()))
    assert scan(broken).columns["problem"].tolist() == [Problem.NONE]
    part = scan(broken, near_duplicates=True)
    assert part.columns["problem"].tolist() == [Problem.PIXELS]
    assert part.columns["width"].tolist() == [32]


def test_a_shard_that_ends_early_is_refused_whole():
    source = Tiny({"broken": [record(0, picture(8, 8))]})
    with pytest.raises(LiditError, match="broken is cut off"):
        scan_shard(source, Shard("broken", "1"))


def test_names_that_are_no_text_are_keys_too():
    odd = record(0, picture(8, 8))._replace(key="\udcff.png")
    assert len(scan(odd).keys) == 3 + 4


def test_an_empty_shard_has_no_rows():
    part = scan()
    assert len(part) == 0
    assert part.caption_chars.shape == (0, 0)


def test_streams_are_closed():
    streams = []

    def opened(content):
        streams.append(io.BytesIO(content))
        return streams[-1]

    one = record(0, picture(8, 8))._replace(open_image=functools.partial(opened, picture(8, 8)))
    scan(one)
    assert [stream.closed for stream in streams] == [True]
