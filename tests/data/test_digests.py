"""Eight bytes that tell records apart."""

import os

import numpy as np
import pytest

from lidit_jax.data.digests import file_digest, short_digest

KIB = 2**10


def test_the_division_into_parts_counts():
    texts = [(b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"abc", b""), ()]
    digests = {short_digest(*text) for text in texts}
    assert len(digests) == len(texts)
    assert {len(digest) for digest in digests} == {8}


@pytest.mark.parametrize("size", [2, 10 * KIB, 20 * KIB, 100 * KIB])
def test_a_file_is_known_by_its_size_its_beginning_and_its_end(size, tmp_path):
    content = bytearray(np.random.default_rng(0).bytes(size))
    file = tmp_path / "file"

    def digest():
        file.write_bytes(content)
        return file_digest(file)

    digests = [digest()]
    os.utime(file, (1, 1))
    assert file_digest(file) == digests[0], "its time does not count"
    for place in (0, size - 1):
        content[place] ^= 1
        digests.append(digest())
    content += b"x"
    digests.append(digest())
    assert len(set(digests)) == 4


def test_of_a_large_file_the_middle_is_not_read(tmp_path):
    """Which is why it takes no longer than a look at its header."""
    content = bytearray(100 * KIB)
    files = tmp_path / "a", tmp_path / "b"
    files[0].write_bytes(content)
    content[50 * KIB] = 1
    files[1].write_bytes(content)
    assert file_digest(files[0]) == file_digest(files[1])
