"""Indexes are made by any number of processes, go on after a kill, and follow their source."""

import functools
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from lidit_jax.data.index.build import build_index
from lidit_jax.data.shared_work import share_work
from lidit_jax.errors import LiditError
from tests.data.index.tiny_source import Tiny, files, picture, record, tiny

PROGRAM = """
import sys
from pathlib import Path
from lidit_jax.data.index.build import build_index
from tests.data.index.tiny_source import tiny
shards, out, scanned, seconds, processes = sys.argv[1:]
source = tiny(int(shards), scanned=scanned, seconds=float(seconds))
build_index(source, Path(out), processes=int(processes))
"""


def launch(shards, out, scanned, seconds=0.0, processes=1):
    """`build_index` in a process of its own."""
    arguments = [shards, out, scanned, seconds, processes]
    out.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], env=os.environ | {"PYTHONPATH": "."}
    )


def scans(scanned) -> Counter[str]:
    lines = scanned.read_text().splitlines() if scanned.exists() else []
    return Counter(line.split()[0] for line in lines)


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def test_processes_make_the_same_index_to_the_byte(folder, tmp_path):
    build_index(tiny(5), folder)
    other = tmp_path / "other"
    other.mkdir()
    build_index(tiny(5), other, processes=3)
    assert files(folder) == files(other)
    assert not [*(folder / "claims").iterdir()]


def test_launches_share_the_shards(folder, tmp_path):
    """Each is scanned once, and all launches end with the index."""
    scanned = tmp_path / "scanned"
    launched = [launch(8, folder, scanned, 0.2) for _ in range(2)]
    assert [process.wait() for process in launched] == [0, 0]
    assert scans(scanned) == {f"shard-{n}": 1 for n in range(8)}
    alone = tmp_path / "alone"
    alone.mkdir()
    build_index(tiny(8), alone)
    assert files(folder) == files(alone)


def test_killed_and_started_again_it_scans_what_is_missing(folder, tmp_path):
    scanned = tmp_path / "scanned"
    process = launch(6, folder, scanned, 0.3, processes=2)
    parts = folder / "parts"
    until(lambda: parts.exists() and len([*parts.glob("[!.]*")]) >= 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)
    done = len([*parts.glob("[!.]*")])
    before = sum(scans(scanned).values())
    impatient = functools.partial(share_work, patience=1)
    build_index(tiny(6, scanned=str(scanned)), folder, work=impatient)
    assert sum(scans(scanned).values()) - before == 6 - done


def test_a_second_time_nothing_is_scanned(folder, tmp_path):
    scanned = tmp_path / "scanned"
    first = build_index(tiny(scanned=str(scanned)), folder)
    before = files(folder)
    again = build_index(tiny(scanned=str(scanned)), folder)
    assert scans(scanned) == {"shard-0": 1, "shard-1": 1, "shard-2": 1}
    assert files(folder) == before
    assert first.fingerprint == again.fingerprint


def test_shards_that_changed_are_scanned_again_and_the_others_are_not(folder, tmp_path):
    scanned = str(tmp_path / "scanned")
    source = tiny(scanned=scanned)
    before = build_index(source, folder)
    source.records["shard-1"] = [record(9, picture(20, 20))]
    source.records["shard-3"] = [record(10, picture(21, 20))]
    del source.records["shard-0"]
    source.versions["shard-1"] = "2"
    after = build_index(source, folder)
    assert scans(tmp_path / "scanned") == {"shard-0": 1, "shard-1": 2, "shard-2": 1, "shard-3": 1}
    assert after.width.tolist() == [20, 8, 9, 21]
    assert after.fingerprint != before.fingerprint
    assert len([*folder.glob("columns-*")]) == 1
    assert len([*(folder / "parts").iterdir()]) == 3
    assert before.width.tolist() == [8, 9] * 3, "whoever has it open reads on"


def test_a_source_may_return_to_an_earlier_state(folder):
    source = tiny()
    build_index(source, folder)
    first = files(folder)
    source.versions["shard-1"] = "2"
    build_index(source, folder)
    del source.versions["shard-1"]
    build_index(source, folder)
    assert files(folder) == first


def test_perceptual_hashes_are_a_column_on_request(folder):
    assert build_index(tiny(), folder).perceptual_hash is None
    hashes = build_index(tiny(), folder, near_duplicates=True).perceptual_hash
    assert hashes.tolist() == [0] * 6, "pictures of one color have no darker place"


def test_broken_shards_are_all_named_and_the_others_stay_done(folder, tmp_path):
    scanned = str(tmp_path / "scanned")
    source = tiny(2, scanned=scanned)
    good = [record(7, picture(8, 8))]
    source.records.update({"broken-0": good, "broken-1": good})
    with pytest.raises(LiditError) as error:
        build_index(source, folder)
    assert "broken-0 is cut off" in str(error.value)
    assert "broken-1 is cut off" in str(error.value)
    assert not (folder / "index.json").exists()
    del source.records["broken-0"], source.records["broken-1"]
    assert len(build_index(source, folder)) == 4
    assert scans(tmp_path / "scanned")["shard-0"] == 1


def test_an_index_of_another_source_is_not_touched(folder):
    class Other(Tiny):
        def __repr__(self):
            return "tiny:other"

    build_index(tiny(), folder)
    before = files(folder)
    with pytest.raises(LiditError, match="is the index of tiny:memory, not of tiny:other: name"):
        build_index(Other(tiny().records), folder)
    assert files(folder) == before


def test_a_source_without_records_is_refused(folder):
    with pytest.raises(LiditError, match="not a single record was found"):
        build_index(Tiny({"s": []}), folder)


def test_a_source_that_cannot_be_listed_claims_no_folder(folder):
    """Such as one of another format: the right one is indexed there afterwards."""

    class Unlisted(Tiny):
        def shards(self):
            raise LiditError("no shard of this format")

    with pytest.raises(LiditError, match="no shard of this format"):
        build_index(Unlisted({}), folder)
    assert list(folder.iterdir()) == []
    build_index(tiny(), folder)
