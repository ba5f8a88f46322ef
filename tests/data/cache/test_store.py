"""Stores that several processes fill: each shard once, whatever ends between."""

import pickle
import threading

import pytest

from lidit_jax.data.cache import store as module
from lidit_jax.data.cache.entries import same_as, values_of, with_values
from lidit_jax.data.cache.layout import Layout
from lidit_jax.data.cache.store import EncodedShard, Facts, StorePlan, open_store
from lidit_jax.errors import LiditError
from tests.data.cache.stand_ins import files
from tests.stores import gcs_store, s3_store

PLAN = StorePlan(
    "numbers", {"data": "a", "scale": 3}, Layout("numbers", (10, 0, 7), 4), {"kept": 1}
)
SHARDS = [shard.name for shard in PLAN.layout.shards()]


class Encoder:
    """Encodes the number of an entry; remembers its shards, and may break off."""

    def __init__(self, break_off_after=None, error: BaseException | None = None):
        error = error or KeyboardInterrupt()
        self.break_off_after, self.error, self.shards = break_off_after, error, []

    def __call__(self, shard, advance):
        if len(self.shards) == self.break_off_after:
            raise self.error
        self.shards.append(shard.name)
        entries = [
            with_values(f"{shard.group}/{i}".encode()) for i in range(shard.start, shard.stop)
        ]
        advance(len(entries))
        return EncodedShard(entries, Facts({"odd": 1}, {"last": shard.stop}), [])


def check(store):
    for group, count in enumerate(PLAN.layout.counts):
        for entry in range(count):
            assert bytes(values_of(store.read(group, entry))) == f"{group}/{entry}".encode()


def test_a_store_holds_every_entry_and_what_its_shards_tell(tmp_path):
    store = open_store(tmp_path, PLAN, Encoder())
    check(pickle.loads(pickle.dumps(store)))
    assert store.extra == {"kept": 1}
    assert store.facts.total == {"odd": 5, "entries": 17, "bytes": 17 * 4, "unusable": 0}
    assert store.facts.largest == {"last": 10}
    names = {"header.json", "summary.json", *SHARDS, *(f"facts/{name}.json" for name in SHARDS)}
    assert {*files(store.folder)} == names


def test_what_is_complete_is_not_encoded_again(tmp_path, capsys):
    open_store(tmp_path, PLAN, Encoder())
    told = capsys.readouterr().out
    assert "numbers: 17 entries, 0.0 MB, 4 bytes each" in told
    assert "s per entry, by all processes together" in told
    again = Encoder()
    check(open_store(tmp_path, PLAN, again, "refuse"))
    assert again.shards == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("shards", range(6))
def test_a_build_that_was_killed_goes_on_with_the_missing_shards(shards, tmp_path):
    first, second = Encoder(shards), Encoder()
    if shards < len(SHARDS):
        with pytest.raises(KeyboardInterrupt):
            open_store(tmp_path / "killed", PLAN, first)
    else:
        open_store(tmp_path / "killed", PLAN, first)
    check(open_store(tmp_path / "killed", PLAN, second))
    assert sorted(first.shards + second.shards) == sorted(SHARDS), "each once"
    open_store(tmp_path / "whole", PLAN, Encoder())
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_two_processes_write_what_one_writes_and_no_shard_twice(tmp_path):
    """Each waits with its second shard until the other one has begun."""
    both = threading.Barrier(2)

    class Meeting(Encoder):
        def __call__(self, shard, advance):
            if not self.shards:
                both.wait(60)
            return super().__call__(shard, advance)

    encoders, stores = (Meeting(), Meeting()), {}

    def run(process):
        stores[process] = open_store(tmp_path / "two", PLAN, encoders[process], share=(process, 2))

    threads = [threading.Thread(target=run, args=(process,)) for process in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores.values():
        check(store)
    assert len(stores) == 2
    assert sorted(encoders[0].shards + encoders[1].shards) == sorted(SHARDS)
    assert encoders[0].shards[0] == SHARDS[0]
    assert encoders[1].shards[0] == SHARDS[1]
    open_store(tmp_path / "one", PLAN, Encoder())
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_under_refuse_the_state_is_told(tmp_path):
    with pytest.raises(LiditError, match=r"numbers-\w+ with the numbers is missing; `lidit cache`"):
        open_store(tmp_path, PLAN, Encoder(), "refuse")
    with pytest.raises(KeyboardInterrupt):
        open_store(tmp_path, PLAN, Encoder(2))
    with pytest.raises(LiditError, match="holds 2 of 5 shards of the numbers; `lidit cache`"):
        open_store(tmp_path, PLAN, Encoder(), "refuse")


def test_a_mistake_ends_the_work_at_once(tmp_path):
    encoder = Encoder(2, LiditError("record 5 is damaged: mend it"))
    with pytest.raises(LiditError, match="record 5 is damaged: mend it"):
        open_store(tmp_path, PLAN, encoder)
    assert len(encoder.shards) == 2
    (folder,) = tmp_path.iterdir()
    assert [*(folder / "claims").iterdir()] == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LiditError, match=r"config\.data\.cache_dir: cannot write to"):
        open_store(tmp_path / "file", PLAN, Encoder())


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(file, records):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_record_file", full)
    with pytest.raises(
        LiditError, match=r"\(No space left on device\): set config\.data\.cache_dir"
    ):
        open_store(tmp_path, PLAN, Encoder())


@pytest.mark.parametrize("content", [None, b"cut off"])
def test_a_damaged_shard_is_named_and_made_again(content, tmp_path):
    store = open_store(tmp_path, PLAN, Encoder())
    (store.folder / SHARDS[1]).unlink()
    if content is not None:
        (store.folder / SHARDS[1]).write_bytes(content)
    with pytest.raises(LiditError, match=rf"{SHARDS[1]} is missing or damaged: delete it and summ"):
        store.read(0, 4)
    (store.folder / SHARDS[1]).unlink(missing_ok=True)
    (store.folder / "summary.json").unlink()
    again = Encoder()
    check(open_store(tmp_path, PLAN, again))
    assert again.shards == [SHARDS[1]]


@pytest.mark.parametrize("name", ["header.json", "summary.json"])
def test_a_damaged_description_is_named(name, tmp_path):
    folder = open_store(tmp_path, PLAN, Encoder()).folder
    for content in ("{", "{}"):
        (folder / name).write_text(content)
        with pytest.raises(LiditError, match=r"damaged .*: delete"):
            open_store(tmp_path, PLAN, Encoder())


def test_an_entry_can_be_that_of_another_one(tmp_path):
    def encode(shard, advance):
        entries = [with_values(b"shared"), *[same_as(0)] * (shard.stop - shard.start - 1)]
        return EncodedShard(entries, Facts({}, {}), [])

    store = open_store(tmp_path, PLAN, encode)
    assert {bytes(values_of(store.read(0, entry))) for entry in range(10)} == {b"shared"}


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_buckets(scheme, tmp_path, monkeypatch):
    from lidit_jax.io.paths import to_path

    monkeypatch.setenv("LIDIT_CACHE", str(tmp_path / "cache"))
    with gcs_store() if scheme == "gs" else s3_store():
        folder = to_path(f"{scheme}://bucket/cache")
        first, second = Encoder(3), Encoder()
        with pytest.raises(KeyboardInterrupt):
            open_store(folder, PLAN, first)
        check(open_store(folder, PLAN, second))
        assert sorted(first.shards + second.shards) == sorted(SHARDS)
        check(open_store(folder, PLAN, Encoder(0), "refuse"))
