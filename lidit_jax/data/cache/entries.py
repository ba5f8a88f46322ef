"""Bytes of a store's entries: values, or the reason why a record has none."""

from __future__ import annotations

import json

from lidit_jax.data.record_reading import UnusableRecordError

_VALUES, _UNUSABLE, _SAME, _UNUSED = b"\0", b"\1", b"\2", b"\3"
UNUSED = _UNUSED
"""Entry that no batch reads: its record or caption was filtered out."""


def with_values(values: bytes) -> bytes:
    """Return an entry with values."""
    return _VALUES + values


def without_values(error: UnusableRecordError) -> bytes:
    """Return the entry of a record that cannot be used."""
    return _UNUSABLE + json.dumps([error.kind, error.message]).encode()


def same_as(number: int) -> bytes:
    """Return an entry with the values of another one in its shard.

    Args:
      number: number of that entry in the shard.
    """
    return _SAME + number.to_bytes(4, "little")


def referred(entry: bytes) -> int | None:
    """Return the number of the entry that holds the values; None for the entry itself."""
    return int.from_bytes(entry[1:], "little") if entry[:1] == _SAME else None


def values_of(entry: bytes) -> memoryview:
    """Return the values of an entry.

    Raises:
      UnusableRecordError: when the record was unusable when it was read.
    """
    if entry[:1] == _UNUSABLE:
        raise UnusableRecordError(*json.loads(entry[1:]))
    if entry[:1] == _UNUSED:
        raise AssertionError("an entry is read that the filters have left out")
    return memoryview(entry)[1:]
