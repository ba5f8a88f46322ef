"""Records that could not be read: counted once, listed, and no more than may be."""

import json

import pytest

from lidit_jax.data.skipped_records import REPAIRED, Skipped, SkippedRecords
from lidit_jax.errors import LiditError


def skipped(record, key="k"):
    return Skipped(record, "folder:x", "shard", key, "damaged", f"{key} is damaged")


def listed(file):
    return [json.loads(line)["record"] for line in file.read_text().splitlines()]


def test_each_is_listed_once_and_a_later_start_goes_on(tmp_path):
    file = tmp_path / "new" / "skipped.jsonl"
    rows = SkippedRecords(file, 10**6, 0.01)
    rows.add([], 64)
    rows.write()
    assert not file.exists()
    rows.add([skipped(3), skipped(5, "\udcff\u2028")], 64)
    rows.add([skipped(3)], 64)
    assert len(rows) == 2
    assert listed(file) == [3, 5]
    again = SkippedRecords(file, 10**6, 0.01)
    again.add([skipped(5), skipped(6)], 64)
    assert len(again) == 3
    assert json.loads(file.read_text().splitlines()[1])["key"] == "\udcff\u2028"
    assert listed(file) == [3, 5, 6]


def test_a_long_list_is_not_written_for_every_line(tmp_path):
    file = tmp_path / "skipped.jsonl"
    rows = SkippedRecords(file, 10**6, 0.5, read=10**6)
    rows.add([skipped(n) for n in range(100)], 1)
    rows.add([skipped(100)], 1)
    assert len(listed(file)) == 100
    rows.write()
    assert len(listed(file)) == 101


def test_too_many_end_the_run_by_the_share_of_what_was_read(tmp_path):
    rows = SkippedRecords(tmp_path / "a.jsonl", 10**6, 0.01)
    rows.add([skipped(n) for n in range(10)], 64)  # 1% of the first thousand
    with pytest.raises(LiditError) as error:
        rows.add([skipped(10, "the last")], 64)
    assert str(error.value) == (
        "11 of 1000 records cannot be read, more than skipped_fraction=0.01: mend them, or allow "
        f"more; {tmp_path / 'a.jsonl'} lists them, at last: the last is damaged"
    )
    assert len(listed(tmp_path / "a.jsonl")) == 11
    later = SkippedRecords(tmp_path / "b.jsonl", 10**6, 0.01, read=5000)
    later.add([skipped(n) for n in range(50)], 1)
    small = SkippedRecords(tmp_path / "c.jsonl", 20, 0.05)
    small.add([skipped(1)], 8)
    with pytest.raises(LiditError, match="2 of 20 records"):
        small.add([skipped(2)], 8)


def test_repaired_ones_are_listed_beside_them_and_count_for_themselves(tmp_path):
    file = tmp_path / "a.jsonl"
    rows = SkippedRecords(file, 100, 0.02)
    rows.add([skipped(1), skipped(2)], 64)
    repaired = [skipped(n)._replace(kind=REPAIRED) for n in range(2, 12)]
    rows.add(repaired, 64)
    assert (len(rows), rows.repaired) == (1, 10), "what had to be skipped before may be repaired"
    kinds = [json.loads(line)["kind"] for line in file.read_text().splitlines()]
    assert kinds == ["damaged"] + [REPAIRED] * 10
    again = SkippedRecords(file, 100, 0.02)
    assert (len(again), again.repaired) == (1, 10)
    again.add([skipped(20)], 64)
    with pytest.raises(LiditError, match=r"3 of 100 records .* at last: the third is damaged"):
        again.add([skipped(21, "the third"), repaired[0]], 64)
    assert skipped(1).outcome == "k is damaged: another record stands in for it"
    assert repaired[0].outcome == repaired[0].message


def test_a_damaged_list_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(LiditError, match=r"a\.jsonl is damaged .*: delete it"):
        SkippedRecords(tmp_path / "a.jsonl", 1, 0.1)
