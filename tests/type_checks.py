"""Checks types and shapes in every call of the package: beartype, under jaxtyping's import hook."""

import dataclasses
import functools
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, BinaryIO, Self, TextIO

import beartype
import beartype.roar
import flax
import jax
import jaxtyping
import numpy as np
from etils import epath

# NumPy's arrays are right where JAX's are, as in JAX itself; shapes and element types are checked.
jaxtyping.Array = jax.Array | np.ndarray

_CONF = beartype.BeartypeConf(
    # Where `float` is promised, an int is right too, as static checkers have it.
    is_pep484_tower=True,
    hint_overrides=beartype.BeartypeHintOverrides(
        {
            # The hook decorates methods without their class, so that this would be unknown.
            Self: Any,
            jax.Array: jax.Array | np.ndarray,
            # In a bucket: see `lidit_jax.io.paths`.
            Path: Path | epath.Path,
            # Those in memory have no name, which beartype asks for.
            BinaryIO: BinaryIO | io.IOBase,
            IO[bytes]: IO[bytes] | io.IOBase,
            TextIO: TextIO | io.IOBase,
        }
    ),
)
_SETTINGS = tuple(f"lidit_jax.config.{name}" for name in ("schema", "data_config", "data_settings"))
_TREES = tuple(str(Path(package.__file__).parent) for package in (jax, flax))
_CHECKERS = (str(Path(jaxtyping.__file__).parent), __file__, dataclasses.__file__)


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes `function` check its arguments: what the hook puts on every function and dataclass."""
    if function.__name__ == "__init__" and function.__module__ in _SETTINGS:
        return function  # users' own, refused by name in `lidit_jax.config`
    checked = beartype.beartype(conf=_CONF)(function)
    takes_stand_ins = False  # from the first violation on: describing one takes a millisecond

    @functools.wraps(function)
    def checking(*args: Any, **kwargs: Any) -> Any:
        nonlocal takes_stand_ins
        if takes_stand_ins and any(map(_stands_in, (*args, *kwargs.values()))):
            return function(*args, **kwargs)
        try:
            return checked(*args, **kwargs)
        except beartype.roar.BeartypeCallHintViolation:
            if any(map(_stands_in, (*args, *kwargs.values()))):
                takes_stand_ins = True
                return function(*args, **kwargs)
            if function.__name__ == "__init__" and _in_a_tree_map():
                return function(*args, **kwargs)
            raise

    return checking


def _stands_in(value: Any) -> bool:
    """Whether a test put the value, or one of its items, in the place of the package's own."""
    if isinstance(value, list | tuple):
        return any(map(_stands_in, value))
    return isinstance(value, SimpleNamespace) or type(value).__module__.startswith("tests.")


def _in_a_tree_map() -> bool:
    """Whether JAX makes the object: its leaves may then be shapes, shardings or placeholders."""
    frame = sys._getframe(1)
    while frame and frame.f_code.co_filename.startswith(_CHECKERS):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith(_TREES)
