"""Turns in proportion: closed counts, one turn for one part, nobody far from its share."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lidit_jax.data.proportions import Proportions

WEIGHTS = st.lists(st.integers(0, 1000), min_size=1, max_size=9).filter(any)


@settings(deadline=None)
@given(WEIGHTS, st.integers(0, 10**12))
def test_every_turn_is_one_parts_and_shares_hold_at_all_times(weights, start):
    turns = np.arange(start, start + 200)
    counts = Proportions(weights).counts(turns)
    np.testing.assert_array_equal(counts.sum(axis=0), turns)
    steps = np.diff(counts, axis=1)
    assert ((steps == 0) | (steps == 1)).all()
    for part, weight in enumerate(weights):
        if not weight:
            assert not counts[part].any()
        for turn, count in ((turns[0], counts[part, 0]), (turns[-1], counts[part, -1])):
            share = Fraction(int(turn) * weight, sum(weights))
            assert abs(int(count) - share) < part + 1


@given(WEIGHTS)
def test_whole_cycles_are_exact_and_each_of_a_parts_turns_is_numbered(weights):
    proportions, total = Proportions(weights), sum(weights)
    assert proportions.counts(np.array([7 * total]))[:, 0].tolist() == [7 * w for w in weights]
    part, number = proportions.turns(np.arange(total))
    for which, weight in enumerate(weights):
        np.testing.assert_array_equal(number[part == which], np.arange(weight))


def test_fractions_and_weights_beyond_64_bits():
    halves = Proportions([Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)])
    assert halves.counts(np.array([6]))[:, 0].tolist() == [3, 2, 1]
    large = Proportions([3 * 10**18, 1, 10**18])
    counts = large.counts(np.array([2**61]))[:, 0]
    assert counts.sum() == 2**61
    assert counts[0] / 2**61 == pytest.approx(0.75, abs=2**-29)
    assert counts[1] > 0
