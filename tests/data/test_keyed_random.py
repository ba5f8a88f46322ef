"""Numbers and orders that are functions of a key."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lidit_jax.data.keyed_random import keyed_bits, keyed_share, shuffled, subkey

RARE = 1e-4
"""Chance that a fair draw looks this odd. The keys are fixed, so a test passes always or never."""


def whole(count, key):
    places = np.arange(count)
    return shuffled(places, count, np.full(count, key, np.uint64))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_an_order_holds_every_place_once(count, key):
    np.testing.assert_array_equal(np.sort(whole(count, key)), np.arange(count))


@settings(deadline=None)
@given(st.integers(1, 2**62), st.data())
def test_orders_of_any_size_stay_inside_and_depend_on_nothing_else(count, data):
    draw = st.integers(0, count - 1)
    places = np.array(data.draw(st.lists(draw, min_size=1, max_size=20)))
    keys = np.full(len(places), 5, np.uint64)
    there = shuffled(places, count, keys)
    assert (there >= 0).all()
    assert (there < count).all()
    assert len(np.unique(there)) == len(np.unique(places))
    np.testing.assert_array_equal(shuffled(places[:1], count, keys[:1]), there[:1])


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_all_orders_of_a_few_places_are_equally_frequent(count):
    draws = 12_000
    keys = np.repeat(keyed_bits(1, np.arange(draws)), count)
    orders = shuffled(np.tile(np.arange(count), draws), count, keys).reshape(draws, count)
    seen = dict.fromkeys(itertools.permutations(range(count)), 0)
    for order in map(tuple, orders.tolist()):
        seen[order] += 1
    assert stats.chisquare(list(seen.values())).pvalue > RARE


def test_neighbors_of_a_long_order_are_independent():
    order = whole(100_000, 9)
    for lag in (1, 2, 316, 317):
        pairs = stats.pearsonr(order[:-lag], order[lag:])
        assert pairs.pvalue > RARE
    assert stats.pearsonr(order, whole(100_000, 10)).pvalue > RARE
    assert stats.pearsonr(order, np.arange(100_000)).pvalue > RARE


def test_shares_are_even_and_differ_by_every_column_and_key():
    numbers = np.arange(20_000)
    zero = np.zeros_like(numbers)
    draws = [
        keyed_share(1, numbers, zero),
        keyed_share(1, zero, numbers),
        keyed_share(1, numbers, zero + 1),
        keyed_share(2, numbers, zero),
    ]
    for share in draws:
        assert stats.kstest(share, "uniform").pvalue > RARE
    for one, other in itertools.combinations(draws, 2):
        assert stats.pearsonr(one, other).pvalue > RARE


def test_numbers_are_the_same_in_every_version():
    """Runs go on with the order that they began with."""
    assert subkey(0, "order", 1, 2) == subkey(0, "order", 1, 2) != subkey(0, "order", 12)
    assert keyed_bits(7, np.array([0, 1])).tolist() == BITS
    assert whole(10, 7).tolist() == ORDER


BITS = [236966933211079599, 12966676493058619558]
ORDER = [2, 4, 3, 8, 0, 9, 6, 1, 7, 5]
