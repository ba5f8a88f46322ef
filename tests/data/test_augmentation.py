"""Crops and flips by record and pass."""

import numpy as np
import pytest
from scipy import stats

from lidit_jax.config.data_settings import AugmentationSettings
from lidit_jax.data.augmentation import draw_augmentation

RECORDS = np.arange(10_000)
FIRST = np.zeros_like(RECORDS)


def drawn(passes=FIRST, seed=0, **settings):
    return draw_augmentation(seed, RECORDS, passes, AugmentationSettings(**settings))


def test_by_default_nothing_is_changed():
    places, flipped = drawn()
    assert (places == 0.5).all()
    assert not flipped.any()


def test_crops_are_even_and_independent():
    places, flipped = drawn(random_crop=True, flip=0.3)
    assert stats.kstest(places[:, 0], "uniform").pvalue > 1e-4
    assert stats.kstest(places[:, 1], "uniform").pvalue > 1e-4
    for pair in ((places[:, 0], places[:, 1]), (places[:, 0], flipped)):
        assert stats.pearsonr(*pair).pvalue > 1e-4
    # Four standard deviations of a share of 10,000 draws.
    assert flipped.mean() == pytest.approx(0.3, abs=0.02)
    assert drawn(flip=1.0).flipped.all()


def test_the_same_pass_draws_the_same_and_another_one_anew():
    first = drawn(random_crop=True, flip=0.5)
    again, later = (drawn(FIRST + n, random_crop=True, flip=0.5) for n in (0, 1))
    np.testing.assert_array_equal(first.places, again.places)
    np.testing.assert_array_equal(first.flipped, again.flipped)
    assert not np.isclose(first.places, later.places).all(axis=1).any()
    assert np.mean(first.flipped == later.flipped) == pytest.approx(0.5, abs=0.02)
