"""Numbers and texts as people give them."""

import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.errors import LiditError
from lidit_jax.sampling.values import is_single, number, several, text, whole_number


@pytest.mark.parametrize(
    "value", [3, np.int64(3), np.uint8(3), np.array(3), jnp.int32(3)], ids=repr
)
def test_whole_numbers_of_every_library(value):
    assert whole_number("seed", value) == 3
    assert type(whole_number("seed", value)) is int


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
        whole_number("seed", value)


@pytest.mark.parametrize("value", [None, True, np.True_, "3", [3.0], 1j], ids=repr)
def test_other_things_are_no_numbers(value):
    with pytest.raises(LiditError, match=r"^guidance=.*: must be a number"):
        number("guidance", value)


def test_other_things_are_no_texts():
    with pytest.raises(LiditError, match="prompt=b'a star': must be a text"):
        text("prompt", b"a star")


def test_anything_with_an_order_is_a_list_of_values():
    for values in ([1, 2], (1, 2), range(1, 3), np.array([1, 2]), (i for i in (1, 2))):
        assert not is_single(values)
        assert several("seed", values, whole_number) == [1, 2]
    with pytest.raises(LiditError, match="seed is a set, which has no order: give a list"):
        several("seed", {1, 2}, whole_number)


def test_texts_and_scalars_are_one_value():
    assert all(map(is_single, ["ab", b"ab", 3, None, np.float32(3), np.array(3), jnp.int32(3)]))
