"""Captions at given rates, drawn by record and pass."""

import numpy as np
import pytest

from lidit_jax.data.caption_choice import choose_columns
from lidit_jax.errors import LiditError

COUNT = 40_000
RECORDS = np.arange(COUNT)
FIRST = np.zeros(COUNT, np.int64)


def chosen(rates, usable, passes=FIRST, seed=0):
    usable = np.broadcast_to(np.array(usable, bool), (COUNT, len(rates)))
    return choose_columns(seed, RECORDS, passes, rates, usable)


def shares(columns, count):
    return np.bincount(columns, minlength=count) / len(columns)


@pytest.mark.parametrize(
    ("rates", "usable", "expected"),
    [
        ((1.0,), [1], [1]),
        ((1.0, 3.0), [1, 1], [0.25, 0.75]),
        ((0.5, 0.2, 0.3), [1, 1, 1], [0.5, 0.2, 0.3]),
        ((0.5, 0.2, 0.3), [0, 1, 1], [0, 0.4, 0.6]),
        ((0.5, 0.2, 0.3), [1, 0, 0], [1, 0, 0]),
        ((0.5, 0.0, 0.5), [1, 1, 1], [0.5, 0, 0.5]),
    ],
)
def test_columns_come_at_their_rates_among_those_that_a_record_has(rates, usable, expected):
    """Four standard deviations of a share of 40,000 draws are 0.01 at most."""
    found = shares(chosen(rates, usable), len(rates))
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert not found[np.array(expected) == 0].any()


def test_a_record_draws_anew_in_each_pass_and_for_each_seed():
    first = chosen((1.0, 1.0), [1, 1])
    np.testing.assert_array_equal(chosen((1.0, 1.0), [1, 1]), first)
    for other in (chosen((1.0, 1.0), [1, 1], FIRST + 1), chosen((1.0, 1.0), [1, 1], seed=1)):
        assert np.mean(other == first) == pytest.approx(0.5, abs=0.01)


def test_the_choice_of_a_record_does_not_depend_on_its_batch():
    whole = chosen((1.0, 2.0), [1, 1])
    part = choose_columns(0, RECORDS[7:9], FIRST[7:9], (1.0, 2.0), np.ones((2, 2), bool))
    np.testing.assert_array_equal(part, whole[7:9])


def test_a_record_without_captions_is_named():
    usable = np.array([[True, True], [False, True]])
    with pytest.raises(LiditError, match="record 8 has no caption that may be read"):
        choose_columns(0, np.array([7, 8]), np.zeros(2, np.int64), (1.0, 0.0), usable)
