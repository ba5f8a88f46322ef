"""Latents for the statistics: the same from pictures as from the cache, without unusable ones."""

import numpy as np
import pytest

from lidit_jax.autoencoders.frozen import FrozenAutoencoder
from lidit_jax.config.data_settings import ReadingSettings
from lidit_jax.data.cache.latent_cache import latent_cache
from lidit_jax.data.first_latents import first_latents
from lidit_jax.data.latent_encoding import LatentEncoder
from lidit_jax.data.latent_statistics import channel_statistics
from lidit_jax.errors import LiditError
from tests.data.test_streamed_data import COUNT, HELD_OUT, SHAPES, opened

PIXELS = FrozenAutoencoder(None, {}, "pixels")
READING = ReadingSettings(skipped_fraction=0.5)


@pytest.fixture
def data():
    ours = opened({4: b"no picture", 7: b"no picture"})
    ours.identity = "ninety pictures"
    return ours


def test_they_are_those_of_the_first_records_in_use(data):
    found = list(first_latents(data, 20, LatentEncoder(PIXELS), READING))
    reds = [round((float(latent[0, 0, 0, 0]) + 1) * 127.5) for latent in found]
    tall = [record for record in range(0, 20, 2) if record != 4]
    square = [record for record in range(1, 20, 2) if record != 7]
    assert reds == tall + square
    shapes = [latent.shape for latent in found]
    assert shapes == [(1, *SHAPES[0], 3)] * 9 + [(1, *SHAPES[1], 3)] * 9
    assert all(latent.dtype == np.float16 for latent in found)


def test_held_out_records_are_never_among_them(data):
    assert len(list(first_latents(data, 1000, LatentEncoder(PIXELS), READING))) == 78
    assert COUNT - HELD_OUT - 2 == 78


def test_statistics_are_the_same_from_the_cache(data, tmp_path):
    cache = latent_cache(data, PIXELS, tmp_path, READING)
    computed = list(first_latents(data, 30, LatentEncoder(PIXELS), READING))
    stored = list(first_latents(data, 30, cache, READING))
    for ours, theirs in zip(computed, stored, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(channel_statistics(computed), channel_statistics(stored), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_record_that_may_not_be_skipped_ends_it(data):
    with pytest.raises(LiditError, match=r"set config\.data\.reading\.damaged to 'skip'"):
        list(first_latents(data, 20, LatentEncoder(PIXELS), ReadingSettings(damaged="fail")))
