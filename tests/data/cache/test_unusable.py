"""Records that cannot be cached: refused by name, or listed up to a limit."""

import pytest

from lidit_jax.config.data_settings import ReadingSettings
from lidit_jax.data.cache.unusable import UnusableRecords
from lidit_jax.data.record_reading import UnusableRecordError
from lidit_jax.data.skipped_records import REPAIRED, Skipped
from lidit_jax.errors import LiditError
from tests.data.cache.stand_ins import opened

DAMAGED = UnusableRecordError("damaged", "record key 2 is damaged: mend it")


def records(counts=(40, 23), **reading):
    return UnusableRecords(opened(counts=counts).sources, ReadingSettings(**reading))


def test_a_row_names_the_record():
    row = records(skipped_fraction=0.1).row(1, 12, DAMAGED)
    assert row == Skipped(52, "painted:", "shard 1", "key 12", "damaged", DAMAGED.message)


def test_a_repaired_record_has_a_row_and_does_not_count():
    many = records(skipped_fraction=0.0, damaged="repair")
    row = many.repaired(1, 12, "it was repaired")
    assert row == Skipped(52, "painted:", "shard 1", "key 12", REPAIRED, "it was repaired")
    with pytest.raises(LiditError, match="1 of 63 records cannot be read"):
        many.row(0, 2, DAMAGED)


def test_what_may_not_be_skipped_is_refused():
    with pytest.raises(LiditError, match=r"key 2 .*set config\.data\.reading\.damaged to 'skip'"):
        records(damaged="fail").row(0, 2, DAMAGED)


def test_the_limit_is_a_share_of_the_records_read():
    many = records((4000,), skipped_fraction=0.01)
    for own in range(10):
        many.row(0, own, DAMAGED)
        many.row(0, own, DAMAGED)
    with pytest.raises(LiditError, match=r"11 of 1000 records .*skipped_fraction=0\.01: mend them"):
        many.row(0, 10, DAMAGED)
    many = records((4000,), skipped_fraction=0.01)
    many.read(2000)
    for own in range(20):
        many.row(0, own, DAMAGED)
    with pytest.raises(LiditError, match="21 of 2000 records"):
        many.row(0, 20, DAMAGED)
