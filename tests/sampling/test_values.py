"""Numbers and texts as people give them."""

import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.errors import LiditError
from lidit_jax.sampling.values import as_integer, as_list, is_single, number, text


@pytest.mark.parametrize(
    "value", [3, np.int64(3), np.uint8(3), np.array(3), jnp.int32(3)], ids=repr
)
def test_whole_numbers_of_every_library(value):
    assert as_integer("seed", value) == 3
    assert type(as_integer("seed", value)) is int


@pytest.mark.parametrize("value", [2.5, np.float32(2.5), np.array(2.5), jnp.float32(2.5)], ids=repr)
def test_numbers_of_every_library(value):
    assert number("guidance", value) == 2.5
    assert type(number("guidance", value)) is float
    assert number("guidance", np.int64(2)) == 2.0


def test_texts_of_every_library():
    assert type(text("prompt", np.str_("a star"))) is str


@pytest.mark.parametrize("value", [None, True, np.True_, 2.0, "3", b"3", [3], {}], ids=repr)
def test_other_things_are_no_whole_numbers(value):
    with pytest.raises(LiditError, match=r"^seed=.*: must be a whole number"):
        as_integer("seed", value)


@pytest.mark.parametrize("value", [None, True, np.True_, "3", [3.0], 1j], ids=repr)
def test_other_things_are_no_numbers(value):
    with pytest.raises(LiditError, match=r"^guidance=.*: must be a number"):
        number("guidance", value)


def test_other_things_are_no_texts():
    with pytest.raises(LiditError, match="prompt=b'a star': must be a string"):
        text("prompt", b"a star")


def test_anything_with_an_order_is_a_list_of_values():
    for values in ([1, 2], (1, 2), range(1, 3), np.array([1, 2]), (i for i in (1, 2))):
        assert not is_single(values)
        assert as_list("seed", values, as_integer) == [1, 2]
    with pytest.raises(LiditError, match="seed is a set, which has no order: give a list"):
        as_list("seed", {1, 2}, as_integer)


def test_texts_and_scalars_are_one_value():
    assert all(map(is_single, ["ab", b"ab", 3, None, np.float32(3), np.array(3), jnp.int32(3)]))
