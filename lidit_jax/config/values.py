"""Field types of the configuration that restrict values to choices or ranges.

A `Literal` lists the values of a field; a `Range` annotation of a number's type defines which are
valid. `lidit_jax.config.checks` checks every field.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar


@dataclass(frozen=True)
class Range:
    """Valid numbers of a field."""

    holds: Callable[[float], bool]
    requirement: str
    """Completes "config.field=value: "."""


Number = TypeVar("Number", int, float)
Positive = Annotated[
    Number, Range(lambda value: 0 < value < math.inf, "must be greater than 0, and finite")
]
NotNegative = Annotated[
    Number, Range(lambda value: 0 <= value < math.inf, "must be 0 or greater, and finite")
]
Decay = Annotated[float, Range(lambda v: 0 <= v < 1, "must be at least 0 and less than 1")]
"""Decay of a running mean."""
Fraction = Annotated[float, Range(lambda v: 0 <= v <= 1, "must be from 0 to 1")]
Seed = Annotated[int, Range(lambda v: 0 <= v < 2**32, f"must be from 0 to {2**32 - 1}")]

ComputeType = Literal["float32", "bfloat16"]
"""Type of matmuls and activations, by its name in NumPy and JAX."""
StorageType = Literal["float32", "bfloat16", "int8"]
"""Type of the stored weights of a frozen encoder."""
LayerChoice = int | tuple[int, ...] | Literal["all"]
"""Hidden states of an encoder: one, several in this order, or those of all transformer blocks."""
Space = Literal["epsilon", "v", "x0", "velocity"]
"""Prediction targets of a diffusion network (`lidit_jax.diffusion.parameterization`)."""


def literal_values(hint: Any) -> tuple[str, ...]:
    """Return the values that a field's type lists; () if it is no `Literal`."""
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def choices(group: type, name: str) -> tuple[str, ...]:
    """Return the valid values of a field of a group, such as `ModelConfig`; () for any."""
    return literal_values(typing.get_type_hints(group)[name])


def ranges(hint: Any) -> tuple[Range, ...]:
    """Return the ranges in the annotations of a field's type."""
    return tuple(extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Range))


@functools.cache
def field_types(group: type, prefix: str = "") -> Mapping[str, Any]:
    """Return the types of all fields in and below a group, with their ranges, by dotted path."""
    found: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(group, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            found |= field_types(hint, f"{prefix}{name}.")
        else:
            found[prefix + name] = hint
    return found
