"""Eight bytes that tell records apart."""

import io
import os

import numpy as np
import pytest

from lidit_jax.data.digests import short_digest, stream_digest

KIB = 2**10


def test_the_division_into_parts_counts():
    texts = [(b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"abc", b""), ()]
    digests = {short_digest(*text) for text in texts}
    assert len(digests) == len(texts)
    assert {len(digest) for digest in digests} == {8}


@pytest.mark.parametrize("size", [2, 10 * KIB, 20 * KIB, 100 * KIB])
def test_a_file_is_known_by_its_size_its_beginning_and_its_end(size, tmp_path):
    content = bytearray(np.random.default_rng(0).bytes(size))
    digests = [stream_digest(io.BytesIO(content))]
    file = tmp_path / "file"
    file.write_bytes(content)
    os.utime(file, (1, 1))
    with file.open("rb") as stream:
        stream.read(100)
        assert stream_digest(stream) == digests[0], "its time and position do not count"
    for place in (0, size - 1):
        content[place] ^= 1
        digests.append(stream_digest(io.BytesIO(content)))
    content += b"x"
    digests.append(stream_digest(io.BytesIO(content)))
    assert len(set(digests)) == 4


def test_of_a_large_file_the_middle_is_not_read():
    """Which is why it takes no longer than a look at its header."""
    content = bytearray(100 * KIB)
    before = stream_digest(io.BytesIO(content))
    content[50 * KIB] = 1
    assert stream_digest(io.BytesIO(content)) == before
