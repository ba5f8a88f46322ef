"""Conversion between nested dictionaries and dataclasses, with checks of names and types."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self, TypeVar

from lidit_jax.config.renamed import new_name
from lidit_jax.config.values import literal_values
from lidit_jax.errors import LiditError

_Built = TypeVar("_Built")


@dataclasses.dataclass(frozen=True)
class Storable:
    """Dataclass of dataclasses that is stored as nested dictionaries, as in checkpoints."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build an instance from the result of `to_dict`; missing fields get their defaults.

        Only names and types are checked; `lidit_jax.config.checks.check` checks the values.

        Raises:
          LiditError: for an unknown field or a value of the wrong type; names the field.
        """
        return build(cls, values, "config")

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as nested dictionaries."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return all fields as JSON text."""
        return json.dumps(self.to_dict(), indent=2)


def build(cls: type[_Built], values: Any, place: str) -> _Built:
    """Build a dataclass of dataclasses; fields that are not given keep their defaults.

    Args:
      cls: the dataclass.
      values: of its fields, by name; lists stand for tuples, whole numbers for floats.
      place: what errors call it, such as "config.model".

    Raises:
      LiditError: for an unknown field or a value of the wrong type; names the field.
    """
    if not isinstance(values, Mapping):
        raise LiditError(f"{place}={values!r} must be a group of fields")
    assert dataclasses.is_dataclass(cls)
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]
    built = {}
    for name, value in values.items():
        if name not in known:
            raise unknown_field(place, name, known)
        built[name] = _convert(hints[name], value, f"{place}.{name}")
    return cls(**built)


def unknown_field(place: str, name: str, known: Iterable[str]) -> LiditError:
    """Return the error for a field that does not exist, with the most similar name."""
    if renamed := new_name(place, name):
        return LiditError(f"{place}.{name} is now {renamed}: use that name")
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(map(repr, known))}"
    return LiditError(f"{place} has no field {name!r}: {hint}")


def _convert(hint: Any, value: Any, place: str) -> Any:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return build(hint, value, place)
    if isinstance(hint, types.GenericAlias):
        items = typing.get_args(typing.get_args(hint)[0]) or typing.get_args(hint)[:1]
        if not isinstance(value, (tuple, list)) or not all(_fits(items, v) for v in value):
            kinds = " or ".join(map(_kind_name, items))
            raise LiditError(f"{place}={value!r} must be a tuple of {kinds}")
        return tuple(_item(items, v) for v in value)
    if typing.get_origin(hint) is Literal:  # `checks` compares it with the choices
        hint = type(typing.get_args(hint)[0])
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise LiditError(f"{place}={value!r} is {type(value).__name__}, must be {hint.__name__}")
    return value


def _fits(kinds: Sequence[Any], item: Any) -> bool:
    """Return whether an item of a tuple has one of the types of its field."""
    inner = [typing.get_args(kind)[:1] for kind in kinds if isinstance(kind, types.GenericAlias)]
    if isinstance(item, (tuple, list)):
        return any(all(_fits(own, part) for part in item) for own in inner)
    named = [value for kind in kinds for value in literal_values(kind)]
    return item in named or type(item) in kinds or (type(item) is int and float in kinds)


def _item(kinds: Sequence[Any], item: Any) -> Any:
    if isinstance(item, (tuple, list)):
        return tuple(item)
    return float(item) if float in kinds else item


def _kind_name(kind: Any) -> str:
    inner = typing.get_args(kind)
    if isinstance(kind, types.GenericAlias):
        return f"tuples of {inner[0].__name__}"
    return repr(inner[0]) if inner else kind.__name__
