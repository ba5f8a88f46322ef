"""The order of records: every record once a pass, the same batches for any number of processes."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lidit_jax.data import order as order_module
from lidit_jax.data.bucket_members import BucketMembers
from lidit_jax.data.order import Order
from lidit_jax.errors import LiditError


def members(counts, seed=0, left_out=0):
    """A source with so many records of each bucket, in a random order."""
    of = np.repeat(np.arange(len(counts), dtype=np.uint8), counts)
    of = np.append(of, np.full(left_out, 255, np.uint8))
    return BucketMembers(np.random.default_rng(seed).permutation(of), len(counts))


def buckets_of(source):
    result = np.full(len(source), 255)
    for bucket, count in enumerate(source.counts):
        result[source.records(bucket, np.arange(count))] = bucket
    return result


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(any),
    st.integers(2, 12),
    st.integers(0, 2**32 - 1),
)
def test_each_pass_of_a_bucket_uses_every_record_once(counts, batch_size, seed):
    source = members(counts, left_out=5)
    order, of = Order([source], batch_size, seed), buckets_of(source)
    seen = {bucket: [] for bucket in range(len(counts))}
    number = 0
    while any(len(seen[b]) < 3 * counts[b] for b in seen):
        batch = order.batch(number)
        assert (of[batch.records] == batch.bucket).all()
        seen[batch.bucket] += zip(batch.passes.tolist(), batch.records.tolist(), strict=True)
        number += 1
    for bucket, drawn in seen.items():
        expected = np.flatnonzero(of == bucket).tolist()
        for number in range(3):
            part = drawn[number * counts[bucket] : (number + 1) * counts[bucket]]
            assert sorted(record for _, record in part) == expected
            assert {passes for passes, _ in part} <= {number}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**9), st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_batches_are_the_same_for_any_number_of_processes(number, processes):
    order = Order([members([50, 7, 31]), members([5, 90, 0])], 12, 3, weights=(1.0, 0.5))
    whole = order.batch(number)
    parts = [order.batch(number, process, processes) for process in range(processes)]
    for name in ("records", "passes"):
        together = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(together, getattr(whole, name))
    assert {part.bucket for part in parts} == {whole.bucket}


def test_restarts_with_other_numbers_of_processes_use_all_records_and_none_twice():
    """100,000 records in 9 buckets: 1, 2 and 4 processes, which stop and go on."""
    generator = np.random.default_rng(0)
    of = generator.choice(9, 100_000, p=[0.02, 0.05, 0.1, 0.2, 0.3, 0.15, 0.1, 0.05, 0.03])
    source = BucketMembers(of.astype(np.uint8), 9)
    order, used, position = Order([source], 320, 11), [], 0
    stays = [(1, 60), (2, 100), (4, 23), (2, 1), (1, 80), (4, 61)]
    for processes, batches in stays:
        ours = [
            np.concatenate([order.batch(n, p, processes).records for n in range(*span)])
            for p in range(processes)
            for span in [(position, position + batches)]
        ]
        used.append(np.concatenate(ours))
        position += batches
    used = np.concatenate(used)
    # One pass is 312.5 batches: all buckets end theirs within a few batches of it.
    in_turn = [order.batch(n) for n in range(position)]
    np.testing.assert_array_equal(np.sort(used), np.sort([r for b in in_turn for r in b.records]))
    passes = np.concatenate([batch.passes for batch in in_turn])
    records = np.concatenate([batch.records for batch in in_turn])
    first = records[passes == 0]
    assert len(np.unique(first)) == len(first)
    assert len(first) > 100_000 - 9 * 9 * 320
    counts = order.counts(position)
    assert counts.sum() == position * 320
    np.testing.assert_array_equal(counts[0], np.bincount(of[records], minlength=9))


def test_buckets_advance_in_proportion():
    counts = np.array([1000, 30, 500, 2470])
    order = Order([members(counts)], 10, 0)
    for batches in (1, 7, 50, 399, 400, 401, 12_345):
        share = counts * batches / 400
        # Less than a batch for each bucket before, see `Proportions.counts`.
        assert (np.abs(order.counts(batches)[0] - share) < 10 * np.arange(1, 5)).all()
    np.testing.assert_array_equal(order.counts(400)[0], counts)


def test_sources_are_mixed_within_batches_by_weight_and_repeat_on_their_own():
    small, large = (
        members([6, 4]),
        members(
            [
                600,
                300,
            ]
        ),
    )
    order = Order([small, large], 20, 5, weights=(1.0, 3.0))
    batches = [order.batch(number) for number in range(400)]
    records = np.concatenate([batch.records for batch in batches])
    assert np.mean(records < 10) == pytest.approx(0.25, abs=0.001)
    for batch in batches:  # the mixture of a bucket: 1/4 * share there to 3/4 * share here
        weight = np.array([[0.6, 0.4], [2.0, 1.0]])[:, batch.bucket]
        share = weight[0] / weight.sum() * 20
        assert abs(np.sum(batch.records < 10) - share) <= 1
    uses = np.bincount(records, minlength=910)
    assert np.ptp(uses[:10]) <= 4  # both buckets of a source, to a few batches
    assert set(uses[10:]) <= {6, 7}
    assert order.source(9) == (0, 9)
    assert order.source(10) == (1, 0)


def test_without_weights_sources_are_one():
    both = Order([members([30, 10]), members([60, 20])], 5, 0)
    batches = [both.batch(number) for number in range(24)]
    records = np.concatenate([batch.records for batch in batches])
    np.testing.assert_array_equal(np.sort(records), np.arange(120))


def test_a_run_goes_on_with_another_batch_size_with_the_unseen_records():
    source = members([333, 100])
    before, after = Order([source], 10, 1), None
    used = [before.batch(n).records for n in range(21)]
    after = Order([source], 16, 1, used=before.counts(21))
    used += [after.batch(n).records for n in range(13)]
    used = np.concatenate(used)
    assert len(used) == 418
    assert len(np.unique(used)) == 418
    assert after.counts(13).sum() == 418


def test_a_source_smaller_than_a_batch_repeats_within_it():
    batch = Order([members([3])], 8, 0).batch(5)
    np.testing.assert_array_equal(np.bincount(batch.records, minlength=3) // 2, [1, 1, 1])


def test_another_seed_is_another_order():
    source = members([100])
    one, other = (Order([source], 50, seed).batch(0).records for seed in (0, 1))
    assert not np.array_equal(one, other)


def test_substitutes_are_of_the_same_source_and_bucket_and_differ():
    first, second = members([40, 60]), members([100, 50])
    order, of = Order([first, second], 10, 0), np.append(buckets_of(first), 0)
    found = [order.substitute(7, attempt) for attempt in range(20)]
    assert len(set(found)) > 10
    assert {of[record] for record in found} == {of[7]}
    assert max(found) < 100
    assert {order.source(order.substitute(130, n))[0] for n in range(9)} == {1}


def test_a_record_outside_of_the_order_is_replaced_by_one_of_its_bucket():
    """It is of its source, if that has any there."""
    first, second = np.array([0, 0, 255, 255], np.uint8), np.array([0, 1, 1], np.uint8)
    order = Order([BucketMembers(first, 2), BucketMembers(second, 2)], 2, seed=0)
    assert {order.substitute(2, attempt, bucket=0) for attempt in range(20)} == {0, 1}
    assert {order.substitute(3, attempt, bucket=1) for attempt in range(20)} == {5, 6}


def test_what_cannot_be_ordered_is_refused():
    with pytest.raises(LiditError, match="a batch of 10 cannot be divided among 4 processes"):
        Order([members([100])], 10, 0).batch(0, 1, 4)
    with pytest.raises(LiditError, match="no records"):
        Order([members([100]), members([0], left_out=4)], 10, 0)
    with pytest.raises(LiditError, match=r"weights=\(1\.0,\): give each of the 2 sources"):
        Order([members([9]), members([9])], 10, 0, weights=(1.0,))


def test_a_far_batch_of_many_records_takes_no_longer():
    """No loop over batches or records: batch 10^12 of 10^7 records within seconds, not ages."""
    source = BucketMembers(np.zeros(10**7, np.uint8), 1)
    order, start = Order([source], 4096, 0), time.monotonic()
    batch = order.batch(10**12)
    assert len(np.unique(batch.records)) == 4096
    assert time.monotonic() - start < 60


def test_buckets_are_told_in_the_order_of_their_first_use(monkeypatch):
    monkeypatch.setattr(order_module, "_PIECE", 7)
    order = Order([members([10, 0, 400, 90])], batch_size=5, seed=0)
    numbers = [order.batch(number).bucket for number in range(100)]
    for begin, end in ((0, 100), (3, 100), (0, 1), (40, 60), (5, 5)):
        assert order.buckets(begin, end) == list(dict.fromkeys(numbers[begin:end]))
    assert order.buckets(0, 2**60) == order.buckets(0, 100), "it does not look through a whole run"


def test_the_first_records_are_those_in_use_with_the_smallest_numbers():
    sources = [members([30, 50], seed=1, left_out=20), members([3, 0], seed=2, left_out=4)]
    order = Order(sources, batch_size=5, seed=0)
    first, second = order.first_records(20)
    np.testing.assert_array_equal(first, np.flatnonzero(buckets_of(sources[0]) != 255)[:10])
    np.testing.assert_array_equal(second, np.flatnonzero(buckets_of(sources[1]) != 255))
