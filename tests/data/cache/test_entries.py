"""Bytes of entries: values, the values of another entry, or why there are none."""

import pytest

from lidit_jax.data.cache.entries import (
    UNUSED,
    referred,
    same_as,
    values_of,
    with_values,
    without_values,
)
from lidit_jax.data.record_reading import UnusableRecordError


@pytest.mark.parametrize("values", [b"", b"\1\2", bytes(range(256))])
def test_values_come_back(values):
    assert bytes(values_of(with_values(values))) == values
    assert referred(with_values(values)) is None


def test_a_reason_comes_back():
    with pytest.raises(UnusableRecordError, match="zwölf: damaged") as error:
        values_of(without_values(UnusableRecordError("damaged", "zwölf: damaged")))
    assert error.value.kind == "damaged"


def test_another_entry_is_named():
    assert referred(same_as(70_000)) == 70_000


def test_what_is_not_used_is_never_read():
    with pytest.raises(AssertionError, match="filters"):
        values_of(UNUSED)
