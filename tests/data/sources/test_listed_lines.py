"""Lines of a listing have the bytes that they say, however they end."""

import io

import pytest

from lidit_jax.data.sources import listed_lines
from lidit_jax.data.sources.listed_lines import split_lines
from lidit_jax.errors import LiditError

CONTENT = 'é,1\r\n\r\n"a\n""b""",2\n \nlast'.encode()


def test_bytes_and_numbers_of_lines():
    for name in ("captions.csv", "captions.jsonl"):
        for line in split_lines(io.BytesIO(CONTENT), name):
            part = CONTENT[line.offset : line.offset + len(line.content)]
            assert part == line.content
            assert CONTENT[: line.offset].count(b"\n") == line.number - 1
    numbers = [line.number for line in split_lines(io.BytesIO(CONTENT), "captions.csv")]
    assert numbers == [1, 3, 6], "a row may have two lines, and an empty line is none"


def test_a_part_counts_from_where_it_begins():
    first, second, third = split_lines(io.BytesIO(CONTENT), "captions.csv")
    part = io.BytesIO(CONTENT[second.offset :])
    assert list(split_lines(part, "captions.csv", second.offset, second.number)) == [second, third]
    assert first.offset == 0


@pytest.mark.parametrize("content", [b'a,"b\n' + b"a,b\n" * 9, b"x" * 100])
def test_what_does_not_end_is_refused(content, monkeypatch):
    monkeypatch.setattr(listed_lines, "_LONGEST", 32)
    with pytest.raises(LiditError, match=r"captions.csv, line 1: it is longer than .* close its"):
        list(split_lines(io.BytesIO(content), "captions.csv"))
