"""The r-th record of a bucket."""

import pickle

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lidit_jax.data.bucket_members import BucketMembers


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 3000), st.integers(1, 4), st.integers(0, 99))
def test_ranks_are_those_of_a_list(count, buckets, seed):
    of = np.random.default_rng(seed).integers(0, buckets + 1, count).astype(np.uint8)
    of[of == buckets] = 255  # left out
    members = BucketMembers(of, buckets)
    assert len(members) == count
    for bucket in range(buckets):
        expected = np.flatnonzero(of == bucket)
        assert members.counts[bucket] == len(expected)
        ranks = np.random.default_rng(0).permutation(len(expected))
        np.testing.assert_array_equal(members.records(bucket, ranks), expected[ranks])
        np.testing.assert_array_equal(members.rank(expected[ranks]), ranks)
        assert all(members.bucket(record) == bucket for record in expected[:3].tolist())


def test_memory_is_a_small_part_of_the_buckets():
    of = np.zeros(2**20, np.uint8)
    members = BucketMembers(of, 9)
    kept = sum(value.nbytes for value in vars(members).values() if value is not of)
    assert kept < 0.15 * of.nbytes


def test_buckets_in_a_file_are_not_sent_to_other_processes(tmp_path):
    of = np.random.default_rng(0).integers(0, 3, 10_000).astype(np.uint8)
    np.save(tmp_path / "buckets.npy", of)
    members = BucketMembers(np.load(tmp_path / "buckets.npy", mmap_mode="r"), 3)
    sent = pickle.dumps(members)
    assert len(sent) < 3000
    ranks = np.arange(100)
    again = pickle.loads(sent)
    np.testing.assert_array_equal(again.records(1, ranks), members.records(1, ranks))
    part = BucketMembers(np.load(tmp_path / "buckets.npy", mmap_mode="r")[5000:], 3)
    again = pickle.loads(pickle.dumps(part))
    np.testing.assert_array_equal(again.records(1, ranks), part.records(1, ranks))
