"""Dictionaries to dataclasses: what is converted, and what is refused by name."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from lidit_jax.config.build import build
from lidit_jax.errors import LiditError


@dataclass(frozen=True)
class Wheel:
    spokes: Annotated[int, "at least one"] = 36
    radius: float = 0.35


@dataclass(frozen=True)
class Bicycle:
    kind: Literal["road", "cargo"] = "road"
    gears: tuple[int, ...] = (1,)
    electric: bool = False
    front: Wheel = field(default_factory=Wheel)


def test_groups_are_built_inside_groups_and_what_is_not_given_is_default():
    values = {"kind": "cargo", "gears": [1, 2], "front": {"spokes": 20}}
    assert build(Bicycle, values, "bicycle") == Bicycle("cargo", (1, 2), False, Wheel(20))


def test_a_whole_number_stands_for_a_float():
    built = build(Wheel, {"radius": 1}, "wheel")
    assert isinstance(built.radius, float)


MISTAKES = {
    "unknown field": ({"front": {"spoke": 1}}, "bicycle.front has no field 'spoke': did you mean "),
    "unknown group": ({"bell": {}}, "bicycle has no field 'bell': it has 'kind', 'gears', "),
    "text for a number": (
        {"front": {"spokes": "8"}},
        "bicycle.front.spokes='8' is str, must be int",
    ),
    "number for a truth": ({"electric": 1}, "bicycle.electric=1 is int, must be bool"),
    "number for a choice": ({"kind": 1}, "bicycle.kind=1 is int, must be str"),
    "value for a group": ({"front": 8}, "bicycle.front=8 must be a group of fields"),
    "no tuple": ({"gears": 3}, "bicycle.gears=3 must be a tuple of int"),
    "other items": ({"gears": ["a"]}, "bicycle.gears=['a'] must be a tuple of int"),
    "no group at all": ([1], "bicycle=[1] must be a group of fields"),
}


@pytest.mark.parametrize(("values", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_what_does_not_fit_is_refused_by_name(values, expected):
    with pytest.raises(LiditError) as refusal:
        build(Bicycle, values, "bicycle")
    assert str(refusal.value).startswith(expected)
