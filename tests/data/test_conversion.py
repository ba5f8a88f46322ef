"""Any source becomes shards of ArrayRecord with an index, and loses nothing on the way."""

import pytest

from lidit_jax.data import conversion
from lidit_jax.data.conversion import convert
from lidit_jax.data.index.build import build_index
from lidit_jax.data.index.open import open_index
from lidit_jax.data.shared_work import share_work
from lidit_jax.data.sources.array_record import ArrayRecords
from lidit_jax.errors import LiditError
from tests.data.index.tiny_source import Tiny, files, picture, record, tiny

pytest.importorskip("array_record")


@pytest.fixture
def source(monkeypatch):
    """Fourteen records, of which two cannot be used."""
    source = tiny(3, 4)
    source.records["shard-1"].append(record(98, b"text", offset=4))
    source.records["shard-1"].append(record(99, picture(8, 8), problem="mend it", offset=5))
    source.records["shard-2"][0] = record(
        8, picture(7, 7), "scored", offset=0, numbers={"score": 0.5}
    )
    monkeypatch.setattr(conversion, "open_records", lambda _: source)
    return source


@pytest.fixture
def index(source, tmp_path):
    (tmp_path / "index").mkdir()
    return build_index(source, tmp_path / "index")


def converted(tmp_path, name="out", **options):
    out = tmp_path / name
    out.mkdir(exist_ok=True)
    return convert(tmp_path / "index", out, options.pop("work", share_work), **options)


def test_every_record_that_can_be_used_is_there_in_its_order(source, index, tmp_path):
    made = converted(tmp_path, records_per_shard=5)
    names = [f"out-{n:05d}-of-00003.array_record" for n in range(3)]
    assert list(made.shards) == names
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["index", *names]
    usable = [i for i in range(len(index)) if index.problem[i] == 0]
    assert [made.key(i) for i in range(12)] == [index.key(i) for i in usable]
    reader = ArrayRecords(str(tmp_path / "out"))
    for ours, theirs in enumerate(usable):
        assert reader.read(made.place(ours)) == source.read(index.place(theirs))
        assert made.content[ours] == index.content[theirs]
        assert made.width[ours] == index.width[theirs]
    assert made.numbers["score"][8] == 0.5
    assert made.caption_chars["caption"].tolist() == index.caption_chars["caption"][usable].tolist()


def test_a_set_without_mistakes_keeps_its_fingerprint(tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "open_records", lambda _: tiny())
    (tmp_path / "index").mkdir()
    before = build_index(tiny(), tmp_path / "index")
    assert converted(tmp_path).fingerprint == before.fingerprint


def test_converted_again_it_writes_what_is_missing(index, tmp_path):
    converted(tmp_path, records_per_shard=5)
    before = files(tmp_path / "out" / "index")
    first, second, _ = sorted((tmp_path / "out").glob("*.array_record"))
    content, kept = first.read_bytes(), second.stat().st_mtime_ns
    first.unlink()
    converted(tmp_path, records_per_shard=5)
    assert first.read_bytes() == content, "the same records give the same bytes"
    assert second.stat().st_mtime_ns == kept
    after = files(tmp_path / "out" / "index")
    columns = [name for name in after if name.endswith(".npy")]
    assert sorted(name.split("/")[-1] for name in columns) == sorted(
        name.split("/")[-1] for name in before if name.endswith(".npy")
    )


def test_another_conversion_is_not_mixed_in(index, source, tmp_path):
    converted(tmp_path, records_per_shard=5)
    with pytest.raises(LiditError, match=r"out holds another conversion, .*: name another folder"):
        converted(tmp_path, records_per_shard=6)
    source.versions["shard-0"] = "2"
    source.records["shard-0"].pop()
    build_index(source, tmp_path / "index")
    with pytest.raises(LiditError, match="holds another conversion"):
        converted(tmp_path, records_per_shard=5)


def test_a_record_that_is_gone_is_named_and_the_other_shards_are_written(index, source, tmp_path):
    def read(place):
        if place.key == "größe/2":
            raise LiditError(f"{place.key} is gone: index it again")
        return Tiny.read(source, place)

    object.__setattr__(source, "read", read)
    with pytest.raises(LiditError, match="größe/2 is gone"):
        converted(tmp_path, records_per_shard=5)
    names = sorted(file.name for file in (tmp_path / "out").glob("*"))
    assert names == ["index", "out-00001-of-00003.array_record", "out-00002-of-00003.array_record"]


def test_without_a_record_there_is_nothing_to_convert(tmp_path):
    (tmp_path / "index").mkdir()
    build_index(Tiny({"s": [record(0, b"text")]}), tmp_path / "index")
    with pytest.raises(LiditError, match="no record that can be used: nothing to convert"):
        converted(tmp_path)


def test_perceptual_hashes_are_kept(source, tmp_path):
    (tmp_path / "index").mkdir()
    build_index(source, tmp_path / "index", near_duplicates=True)
    converted(tmp_path)
    assert open_index(tmp_path / "out" / "index").perceptual_hash is not None
