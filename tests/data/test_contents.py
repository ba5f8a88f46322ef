"""A data set remembered in a few bytes, and what has changed since."""

import numpy as np
import pytest

from lidit_jax.data.contents import Contents, difference


def digests(**records):
    """Of records given as name=content."""
    rows = [(ord(name), content) for name, content in records.items()]
    return np.array(rows, np.uint64).reshape(-1, 2)


BEFORE = {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize(
    ("now", "counts"),
    [
        (BEFORE, (0, 0, 0)),
        ({"c": 3, "b": 2, "a": 1}, (0, 0, 0)),
        ({"a": 1, "b": 2, "c": 3, "d": 1, "e": 9}, (2, 0, 0)),
        ({"b": 2}, (0, 2, 0)),
        ({"a": 1, "b": 7, "c": 8}, (0, 0, 2)),
        ({"d": 1, "b": 7}, (1, 2, 1)),
        ({}, (0, 3, 0)),
    ],
)
def test_records_are_counted_that_came_went_or_changed(now, counts):
    assert difference(digests(**BEFORE), digests(**now)) == counts


def test_the_fingerprint_is_that_of_the_records_in_any_order():
    contents = Contents.of_digests(digests(**BEFORE))
    assert contents.records == 3
    same = Contents.of_digests(digests(c=3, a=1, b=2))
    assert same == contents
    assert same.description == contents.description
    np.testing.assert_array_equal(same.digests, contents.digests)
    for other in ({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 4}, {"a": 1, "b": 2, "d": 3}):
        assert Contents.of_digests(digests(**other)).fingerprint != contents.fingerprint


def test_a_data_set_of_100_000_records_is_compared_at_once():
    """And kept in 16 bytes a record."""
    before = np.random.default_rng(0).integers(0, 2**63, (100_000, 2), np.uint64)
    assert before.nbytes == 1_600_000
    now = before[1000:].copy()
    now[:10, 1] += np.uint64(1)
    assert difference(before, now) == (0, 1000, 10)
