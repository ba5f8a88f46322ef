"""Whole numbers as people write them."""

import pytest

from lidit_jax.io.numbers import parse_integer


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2000000", 2_000_000),
        ("2_000_000", 2_000_000),
        ("2e6", 2_000_000),
        ("2M", 2_000_000),
        ("1.5m", 1_500_000),
        ("30k", 30_000),
        ("1B", 10**9),
        ("0", 0),
        ("0e99", 0),
        ("-3", -3),
        ("16.0", 16),
        (" 7 ", 7),
    ],
)
def test_these_are_whole_numbers(text, number):
    assert parse_integer(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "M", "two", "2.5", "1e-3", "0.0001k", "nan", "inf", "1e999999999", "2MM", "²", "0x2"],
)
def test_these_are_none(text):
    assert parse_integer(text) is None
