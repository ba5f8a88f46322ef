"""Shapes of batches: how many tokens, which pictures, and what is cut off."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lidit_jax.config.data_settings import BucketSettings
from lidit_jax.data.buckets import LEFT_OUT, Buckets, bucket_counts, joined
from lidit_jax.errors import LiditError

SIDES = st.integers(1, 65_535)


@settings(deadline=None)
@given(st.integers(1, 96), st.sampled_from([1, 2, 8, 16, 32]), st.integers(1, 10))
def test_shapes_are_steps_of_nearly_equal_area_in_mirrored_pairs(units, step, most):
    shapes = Buckets(units * step, step, BucketSettings(shapes=most)).shapes
    assert 1 <= len(shapes) <= most
    assert len(set(shapes)) == len(shapes)
    assert shapes == tuple(shape[::-1] for shape in reversed(shapes))
    assert shapes[len(shapes) // 2] == (units * step, units * step)
    area = (units * step) ** 2
    for height, width in shapes:
        assert height % step == width % step == 0
        assert area / 1.05 <= height * width <= area
        assert 1 / 2.1 <= width / height <= 2.1
    aspects = [width / height for height, width in shapes]
    assert aspects == sorted(aspects)


def test_the_usual_sizes():
    of_256 = ((336, 192), (304, 208), (272, 240))
    assert Buckets(256, 16).shapes[1:4] == of_256
    for side in (256, 512, 1024):
        shapes = Buckets(side, 16).shapes
        assert len(shapes) == 9
        assert shapes[-1][1] / shapes[-1][0] == pytest.approx(2, rel=0.05)


def test_small_sizes_have_the_square_alone():
    assert Buckets(64, 16).shapes == ((64, 64),)
    assert Buckets(512, 16, BucketSettings(shapes=1)).shapes == ((512, 512),)
    assert Buckets(64, 16).assign(np.array([1, 900]), np.array([900, 1])).tolist() == [0, 0]


def test_a_side_that_is_no_multiple_is_refused():
    with pytest.raises(LiditError, match=r"image size 100: must be a positive multiple of 16"):
        Buckets(100, 16)


@settings(deadline=None)
@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=50), st.sampled_from([128, 512]))
def test_a_picture_has_the_shape_of_the_nearest_aspect(sizes, side):
    """Logarithms of the nearest and of the chosen aspect differ by their rounding at most."""
    table = Buckets(side, 16)
    width, height = np.array(sizes).T
    found = table.assign(width, height)
    aspects = np.array([math.log(w / h) for h, w in table.shapes])
    far = np.abs(np.log(width / height)[:, None] - aspects)
    np.testing.assert_allclose(far[np.arange(len(found)), found], far.min(axis=1), atol=1e-14)
    np.testing.assert_array_equal(table.assign(height, width), len(table) - 1 - found.astype(int))


def test_a_panorama_longer_than_any_square_fits():
    width = np.array([178_000_000, 1])
    assert Buckets(512, 16).assign(width, width[::-1]).tolist() == [8, 0]


def test_what_is_cut_is_reported_by_bucket():
    table = Buckets(512, 16)
    width, height = np.array([512, 1024, 100, 7]), np.array([512, 512, 50, 7])
    buckets = table.assign_kept(width, height, np.array([True, True, True, False]))
    assert buckets[3] == LEFT_OUT
    assert buckets[1] == buckets[2]
    shape = table.shapes[buckets[1]]
    cut = 1 - min(2 / (shape[1] / shape[0]), shape[1] / shape[0] / 2)
    report = table.report(width, height, buckets)
    assert [row.records for row in report if row.records] == [1, 2]
    assert report[4] == ((512, 512), 1, 0.0)
    assert report[buckets[1]].cut == pytest.approx(cut)
    assert bucket_counts(buckets, 9).tolist() == [row.records for row in report]


def test_buckets_with_fewer_than_a_batch_join_the_nearest():
    table = Buckets(512, 16)
    full = table.join_small([100] * 9, 100)
    np.testing.assert_array_equal(full, np.arange(9))
    #                        tall                     square               wide
    goes = table.join_small([10, 100, 3, 3, 500, 0, 100, 40, 70], 100)
    assert goes[0] == 1  # the tallest join their neighbor
    assert goes[2] in (1, 4)
    assert goes[5] == 4 or goes[5] == 6
    assert goes[7] == goes[8] == 8  # two that are small fill batches together
    counts = np.bincount(goes, [10, 100, 3, 3, 500, 0, 100, 40, 70], 9)
    assert counts.sum() == 826
    assert ((counts == 0) | (counts >= 100)).all()


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=9, max_size=9), st.integers(1, 100))
def test_joined_buckets_fill_a_batch_or_are_the_last(counts, batch):
    goes = Buckets(512, 16).join_small(counts, batch)
    buckets = np.repeat(np.arange(9, dtype=np.uint8), counts)
    left = joined(np.append(buckets, np.uint8(LEFT_OUT)), goes)
    assert left[-1] == LEFT_OUT
    found = bucket_counts(left, 9)
    assert found.sum() == sum(counts)
    assert len(set(goes.tolist())) == 1 or (found[np.unique(goes)] >= batch).all()
    np.testing.assert_array_equal(goes[goes], goes)
