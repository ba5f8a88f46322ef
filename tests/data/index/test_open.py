"""An index gives columns, keys, places and problems; one in a bucket is fetched once."""

import json
import pickle

import numpy as np
import pytest
from etils.epath.backend import fsspec_backend
from fsspec.config import conf

from lidit_jax.data.index.build import build_index
from lidit_jax.data.index.open import is_index, open_index
from lidit_jax.data.streamed_source import RecordIndex
from lidit_jax.errors import LiditError
from lidit_jax.io.paths import to_path
from tests import fake_gcs
from tests.data.index.tiny_source import Tiny, files, picture, record, tiny


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def test_an_index_is_opened_as_it_was_made(folder):
    source = Tiny(
        {
            "a": [record(0, picture(8, 9), "one", numbers={"score": 0.5}), record(1, b"text")],
            "b": [],
            "c": [record(2, picture(10, 9))._replace(captions={"short": "three"})],
        }
    )
    made = build_index(source, folder)
    index = open_index(folder)
    for one in (made, index):
        assert len(one) == 3
        assert one.source == "tiny:memory"
        assert one.shards == ("a", "b", "c")
        assert one.width.tolist() == [8, 0, 10]
        assert one.problem.tolist() == [0, 2, 0]
        assert {name: list(chars) for name, chars in one.caption_chars.items()} == {
            "caption": [3, 1, 0],
            "short": [0, 0, 5],
        }
        np.testing.assert_array_equal(one.numbers["score"], [0.5, np.nan, np.nan])
        assert [one.key(i) for i in range(3)] == ["größe/0", "größe/1", "größe/2"]
        assert one.place(2) == ("c", "größe/2", 2, len(picture(10, 9)))
        assert one.counts == {"record": 0, "image": 1, "pixels": 0, "caption": 0}
    (problem,) = index.problems()
    assert problem[:4] == (1, "a", "größe/1", "image")
    assert "not a readable image" in problem.message


def test_every_place_is_read(folder):
    source = tiny(4, 3)
    index = build_index(source, folder)
    for number in range(len(index)):
        assert source.read(index.place(number)).captions["caption"] == "red " * (1 + number % 3)


def test_columns_are_mapped_and_cannot_be_changed(folder):
    index = build_index(tiny(), folder)
    assert isinstance(index.width, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        index.width[0] = 1


def test_an_index_that_is_sent_to_a_process_is_mapped_there(folder):
    index = build_index(tiny(40), folder)
    sent = pickle.dumps(index)
    assert len(sent) < index.offset.nbytes + 4000, "names of files and shards, and no column"
    again = pickle.loads(sent)
    assert isinstance(again.width, np.memmap)
    assert again.place(7) == index.place(7)
    assert isinstance(index, RecordIndex), "what batches and filters read"


def test_the_fingerprint_follows_records_and_neither_order_nor_place(tmp_path):
    first, second = record(0, picture(8, 8)), record(1, picture(9, 9))

    def fingerprint(name, records):
        (tmp_path / name).mkdir()
        return build_index(Tiny(records), tmp_path / name).fingerprint

    whole = fingerprint("a", {"s": [first, second]})
    assert fingerprint("b", {"t": [second], "u": [first]}) == whole
    assert fingerprint("c", {"s": [first, second._replace(key="other")]}) != whole
    assert fingerprint("d", {"s": [first, record(1, picture(9, 10))]}) != whole


def test_what_is_no_index_is_told(folder, tmp_path):
    for place in (tmp_path / "none", folder):
        assert not is_index(place)
        with pytest.raises(LiditError, match="holds no index: make it with lidit data index"):
            open_index(place)
    build_index(tiny(), folder)
    assert is_index(folder)
    file = folder / "index.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps(about | {"format": 99}))
    with pytest.raises(LiditError, match="format 99, and this version of lidit reads format 1"):
        open_index(folder)
    for content in ("{", "[]", '"x"', "{}"):
        file.write_text(content)
        with pytest.raises(LiditError, match="is damaged"):
            open_index(folder)


def test_an_index_with_a_file_that_is_cut_off_is_refused(folder):
    build_index(tiny(), folder)
    before = files(folder)
    for name in [name for name in before if name != "index.json"]:
        (folder / name).write_bytes(before[name] + b"x")
        with pytest.raises(LiditError, match="is a damaged index"):
            open_index(folder)
        (folder / name).unlink()
        with pytest.raises(LiditError, match="is a damaged index"):
            open_index(folder)
        (folder / name).write_bytes(before[name])
    open_index(folder)


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    store = fake_gcs.Store("bucket")
    with fake_gcs.serve(store) as address:
        for name, value in fake_gcs.variables(address).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LIDIT_CACHE", str(tmp_path / "cache"))
        monkeypatch.setitem(conf, "gcs", {"token": "anon"})
        fsspec_backend._get_filesystem.cache_clear()
        yield store
    fsspec_backend._get_filesystem.cache_clear()


def test_an_index_in_a_bucket_is_the_same_and_fetched_once(bucket, folder, tmp_path):
    there = to_path("gs://bucket/index")
    source = tiny()
    made = build_index(source, there)
    build_index(source, folder)
    assert {name: bucket.read("bucket", f"index/{name}") for name in files(folder)} == files(folder)
    assert made.folder.is_relative_to(tmp_path / "cache")
    for name in bucket.names("bucket", "index/columns"):
        del bucket.buckets["bucket"][name]
    assert open_index(there).width.tolist() == made.width.tolist()
    assert bucket.names("bucket", "index/claims") == []


def test_an_index_in_a_bucket_follows_its_source(bucket):
    there = to_path("gs://bucket/index")
    source = tiny()
    build_index(source, there)
    source.versions["shard-1"] = "2"
    source.records["shard-1"] = [record(9, picture(20, 20))]
    assert build_index(source, there).width.tolist() == [8, 9, 20, 8, 9]
    folders = {name.split("/")[1] for name in bucket.names("bucket", "index/columns")}
    assert len(folders) == 1
