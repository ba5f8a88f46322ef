"""Parsing of integers such as 2000000, 2_000_000, 2e6 and 2M."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

_UNITS = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}
_DIGITS = 19
"""Largest number of digits; 1e999999999 would fill the memory."""


def parse_integer(text: str) -> int | None:
    """Parse an integer; return None if the text is not one.

    Args:
      text: digits, optionally with underscores; "2e6"; or a suffix for thousands (k), millions (M)
        or billions (B or G), in either case, such as "1.5M".
    """
    text = text.strip()
    factor = _UNITS.get(text[-1:].lower(), 1)
    try:
        value = Decimal(text[:-1] if factor > 1 else text)
    except InvalidOperation:
        return None
    if not value.is_finite() or (value and value.adjusted() >= _DIGITS):
        return None
    value *= factor
    return int(value) if value == value.to_integral_value() else None
