"""Copies by 64-bit hashes, against the definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lidit_jax.data.near_duplicates import copies


def by_definition(hashes, rank, distance):
    kept, result = [], np.zeros(len(hashes), bool)
    for record in np.argsort(rank):
        if any(int(hashes[record] ^ hashes[other]).bit_count() <= distance for other in kept):
            result[record] = True
        else:
            kept.append(record)
    return result


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 80), st.integers(0, 8), st.integers(0, 10**6))
def test_those_that_stay_are_the_first_of_their_neighborhoods(count, distance, seed):
    """Families of hashes that differ in a few bits, so that there are chains and copies."""
    generator = np.random.default_rng(seed)
    hashes = generator.integers(0, 2**64, 5, np.uint64)[generator.integers(0, 5, count)]
    for _ in range(4):
        bit = generator.integers(0, 64, count).astype(np.uint64)
        hashes ^= (generator.random(count) < 0.4).astype(np.uint64) << bit
    rank = generator.permutation(count)
    np.testing.assert_array_equal(
        copies(hashes, rank, distance), by_definition(hashes, rank, distance)
    )


def test_the_ends_of_a_chain_are_two_pictures():
    chain = np.array([0b0, 0b1, 0b11, 0b111], np.uint64)
    assert copies(chain, np.arange(4), 1).tolist() == [False, True, False, True]
    assert copies(chain, np.arange(4)[::-1], 1).tolist() == [True, False, True, False]


@pytest.mark.parametrize("distance", [0, 4])
def test_many_equal_hashes_are_one_and_take_no_pairs(distance):
    hashes = np.repeat(np.array([0, 2**63 + 31, 2**62 - 1], np.uint64), 50_000)
    result = copies(hashes, np.arange(len(hashes)), distance)
    assert np.flatnonzero(~result).tolist() == [0, 50_000, 100_000]


def test_no_records_have_no_copies():
    assert copies(np.zeros(0, np.uint64), np.zeros(0, np.int64), 3).shape == (0,)


def test_a_hundred_thousand_hashes_are_compared_at_once():
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**64, 100_000, np.uint64)
    hashes[50_000:50_100] = hashes[:100] ^ np.uint64(0b1011 << 40)
    dropped = np.flatnonzero(copies(hashes, np.arange(100_000), 3))
    np.testing.assert_array_equal(dropped, np.arange(50_000, 50_100))
