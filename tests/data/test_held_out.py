"""Held-out records: which they are, and that a validation holds each of them once."""

import dataclasses

import numpy as np
import pytest

from lidit_jax.data import held_out
from lidit_jax.data.bucket_members import BucketMembers
from lidit_jax.data.buckets import LEFT_OUT
from lidit_jax.data.held_out import HeldOut, held_out_counts, smallest
from lidit_jax.data.order import Order
from lidit_jax.errors import LiditError

BUCKETS = np.arange(100, dtype=np.uint8) % 3


def opened(records, batch_size=4, times=1):
    records = np.array(records)
    training = BUCKETS.copy()
    training[records] = LEFT_OUT
    order = Order([BucketMembers(training, 3)], 4, seed=0)
    ranks = np.lexsort((records, BUCKETS[records]))
    records = records[ranks]
    return HeldOut(order, records, BUCKETS[records], batch_size, times)


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("times", [1, 3])
def test_a_validation_holds_each_record_once_per_time(processes, times):
    chosen = [0, 3, 6, 9, 12, 1, 99]
    whole = opened(chosen, times=times)
    seen, positions = [], []
    for number in range(whole.batches):
        buckets = set()
        for process in range(processes):
            batch = whole.batch(number, process, processes)
            rows = whole.rows(number, process, processes)
            assert batch.number == number
            assert len(batch.records) == len(batch.passes) == 4 // processes
            assert set(BUCKETS[batch.records]) == {batch.bucket}
            buckets.add(batch.bucket)
            seen += zip(batch.records[rows.valid], batch.passes[rows.valid], strict=True)
            positions += rows.positions[rows.valid].tolist()
        assert len(buckets) == 1
    assert sorted(seen) == [(r, t) for r in sorted(chosen) for t in range(times)]
    assert sorted(positions) == [*range(len(whole))] == [*range(len(chosen) * times)]
    assert whole.shapes == (0, 1)


def test_positions_do_not_depend_on_the_batch_size():
    def rows(size):
        whole = dataclasses.replace(opened([0, 3, 6, 9, 1, 4, 7, 2], times=2), batch_size=size)
        found = {}
        for number in range(whole.batches):
            batch, place = whole.batch(number), whole.rows(number)
            valid = place.valid
            keys = zip(place.positions[valid].tolist(), batch.records[valid].tolist(), strict=True)
            found |= dict(keys)
        return found

    assert rows(2) == rows(3) == rows(64)
    assert len(rows(5)) == 16


def test_substitutes_are_other_held_out_records_of_the_shape_and_then_training_ones():
    whole = opened([0, 3, 6, 1])
    assert [whole.substitute(3, attempt) for attempt in range(2)] == [6, 0]
    later = [whole.substitute(3, attempt) for attempt in range(2, 30)]
    assert {int(BUCKETS[record]) for record in later} == {0}
    assert len({*later}) > 10
    assert not {*later} & {0, 3, 6, 1}
    assert BUCKETS[whole.substitute(1, 0)] == 1
    assert whole.source(7) == (0, 7)


def test_processes_must_divide_a_batch():
    with pytest.raises(LiditError, match="a batch of 4 cannot be divided among 3 processes"):
        opened([0, 1]).batch(0, 0, 3)


def test_the_smallest_digests_of_usable_records_are_chosen(monkeypatch):
    names = np.random.default_rng(0).integers(0, 2**63, 1000).astype(np.uint64)
    usable = np.arange(1000) % 3 > 0
    expected = sorted(np.flatnonzero(usable).tolist(), key=lambda record: names[record])[:40]
    assert smallest(names, usable, 40).tolist() == sorted(expected)
    monkeypatch.setattr(held_out, "_PIECE", 64)
    assert smallest(names, usable, 40).tolist() == sorted(expected)
    # Another order of the records gives the same ones.
    shuffled = np.random.default_rng(1).permutation(1000)
    again = shuffled[smallest(names[shuffled], usable[shuffled], 40)]
    assert sorted(again) == sorted(expected)
    assert smallest(names, usable, 9999).tolist() == np.flatnonzero(usable).tolist()
    assert smallest(np.zeros(9, np.uint64), np.ones(9, bool), 2).tolist() == [0, 1]


def test_sources_share_the_held_out_records_by_their_rates():
    assert held_out_counts([1000], [1000], 64) == [64]
    assert held_out_counts([1000, 3000], [1000, 3000], 64) == [16, 48]
    assert held_out_counts([1000, 3000], [1.0, 1.0], 64) == [32, 32]
    assert held_out_counts([10**6, 10], [10**6, 10], 64) == [64, 1]
    assert held_out_counts([5, 5], [1.0, 9.0], 64) == [5, 5]
