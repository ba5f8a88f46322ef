"""Captions that records of a source share."""

import numpy as np

from lidit_jax.config.data_settings import CaptionSettings, FilterSettings
from lidit_jax.data.streamed_source import SharedCaptions, StreamedSource
from tests.data.stand_ins import Columns, Painted


def source(count, shared=SharedCaptions()):  # noqa: B008 (never changed)
    index = Columns(count)
    return StreamedSource(index, Painted(index), CaptionSettings(), FilterSettings(), shared)


def test_each_record_has_its_own():
    own = source(5)
    numbers = np.arange(5)
    assert own.caption_count == 5
    np.testing.assert_array_equal(own.caption_numbers(numbers), numbers)
    np.testing.assert_array_equal(own.caption_records(numbers), numbers)


def test_records_share_captions_and_later_ones_do_not():
    shared = source(10, SharedCaptions(records=7, distinct=3))
    assert shared.caption_count == 6
    numbers = shared.caption_numbers(np.arange(10))
    assert numbers.tolist() == [0, 1, 2, 0, 1, 2, 0, 3, 4, 5]
    records = shared.caption_records(np.arange(6))
    assert records.tolist() == [0, 1, 2, 7, 8, 9]
    assert shared.caption_numbers(records).tolist() == [*range(6)]
