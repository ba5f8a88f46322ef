"""The part of an index that one shard fills, as a file."""

import io

import numpy as np
import pytest

from lidit_jax.data.index.columns import Part, decode_key, encode_key
from lidit_jax.data.index.scan import scan_shard
from lidit_jax.data.sources.protocol import Shard
from lidit_jax.errors import LiditError
from tests.data.index.tiny_source import Tiny, picture, record


def test_a_part_is_read_as_it_was_written(tmp_path):
    records = [record(0, picture(8, 9), numbers={"a/b:c": 1.5}), record(1, b"x")]
    part = scan_shard(Tiny({"s": records}), Shard("s", "1"), near_duplicates=True)
    with (tmp_path / "part").open("wb") as file:
        part.save(file)
    again = Part.load(tmp_path / "part")
    assert again.columns.keys() == part.columns.keys()
    for name, values in part.columns.items():
        np.testing.assert_array_equal(again.columns[name], values)
        assert again.columns[name].dtype == values.dtype
    assert again.problems == part.problems
    assert again.number_names == ["a/b:c"]
    np.testing.assert_array_equal(again.numbers, part.numbers)


def test_a_damaged_part_is_told(tmp_path):
    part = scan_shard(Tiny({"s": [record(0, picture(8, 9))]}), Shard("s", "1"))
    stream = io.BytesIO()
    part.save(stream)
    for content in (b"", b"text", stream.getvalue()[:-30]):
        (tmp_path / "part").write_bytes(content)
        with pytest.raises(LiditError, match=r"part is damaged .*: delete it and start again"):
            Part.load(tmp_path / "part")


def test_keys_may_be_any_names_of_files():
    for key in ("a.jpg", "größe/红", "\udcff", "\ud83d"):
        assert decode_key(encode_key(key)) == key
