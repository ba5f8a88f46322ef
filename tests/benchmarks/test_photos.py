"""Photos of the data benchmark: sizes of cameras, the same for the same number."""

import numpy as np
from PIL import Image

from lidit_jax.benchmarks.photos import photo, write_photos


def test_a_photo_is_a_function_of_its_number():
    one, again, other = photo(1), photo(1), photo(2)
    assert 1e6 * 0.99 < one.width * one.height < 24e6 * 1.01
    np.testing.assert_array_equal(one, again)
    assert one.size != other.size


def test_photos_are_written_once_with_captions(tmp_path):
    told = []
    write_photos(tmp_path, 2, lambda *counts: told.append(counts), threads=2)
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert (tmp_path / "00001.txt").read_text() == "photo number 1\n"
    first = tmp_path / "00000.jpg"
    assert Image.open(first).size == photo(0).size
    time = first.stat().st_mtime_ns
    write_photos(tmp_path, 2, lambda *counts: None, threads=1)
    assert first.stat().st_mtime_ns == time
