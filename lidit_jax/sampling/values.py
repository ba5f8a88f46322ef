"""Conversion of users' numbers and texts from Python, NumPy or JAX, single or in lists."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

from lidit_jax.errors import LiditError


def as_integer(name: str, value: Any) -> int:
    """Convert a Python, NumPy or JAX integer to int. Raises `LiditError` for anything else."""
    try:
        if _is_bool(value):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise LiditError(f"{name}={value!r}: must be a whole number") from None


def number(name: str, value: Any) -> float:
    """Convert any real number to float. Raises `LiditError` for anything else."""
    scalar = _scalar(value)
    if isinstance(scalar, bool) or not isinstance(scalar, numbers.Real):
        raise LiditError(f"{name}={value!r}: must be a number")
    return float(scalar)


def text(name: str, value: Any) -> str:
    """Convert a Python or NumPy string to str. Raises `LiditError` for anything else."""
    scalar = _scalar(value)
    if not isinstance(scalar, str):
        raise LiditError(f"{name}={value!r}: must be a string")
    return str(scalar)


def is_single(value: Any) -> bool:
    """Return whether this is a single value, not a collection."""
    if isinstance(value, (str, bytes)) or getattr(value, "ndim", None) == 0:
        return True
    return not isinstance(value, Iterable)


def as_list(name: str, values: Iterable[Any], kind: Callable[[str, Any], Any]) -> list[Any]:
    """Convert an ordered collection to a list: a list, a tuple, an array, a generator.

    Args:
      name: of the values, for messages.
      values: the collection.
      kind: converter of each value: `as_integer`, `number` or `text`.

    Raises:
      LiditError: for a dictionary or a set, or a value of another kind.
    """
    if isinstance(values, (Mapping, Set)):
        raise LiditError(f"{name} is a {type(values).__name__}, which has no order: give a list")
    return [kind(name, value) for value in values]


def _scalar(value: Any) -> Any:
    """Convert NumPy and JAX scalars to Python's."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _is_bool(value: Any) -> bool:
    """Return whether it is a bool, which Python also counts as an int."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool"
