"""Layers by number: one, several or all of an encoder, and what names none."""

import pytest

from lidit_jax.encoders.layer_choice import blocks_below, chosen_layers, layer_count, stored_layers
from lidit_jax.errors import LiditError


@pytest.mark.parametrize(
    ("choice", "layers", "stored"),
    [
        (-3, -3, -3),
        (0, 0, 0),
        ((-3,), -3, -3),
        ((-1, 0, 2), (-1, 0, 2), [-1, 0, 2]),
        ("all", (1, 2, 3, 4), [1, 2, 3, 4]),
    ],
)
def test_a_choice_becomes_numbers_in_its_order(choice, layers, stored):
    """One of several is that one: its features have no axis of layers."""
    assert chosen_layers(choice, 4) == layers
    assert stored_layers(layers) == stored
    assert layer_count(layers) == layer_count(stored) == (len(stored) if stored != layers else 1)


def test_the_only_block_is_all():
    assert chosen_layers("all", 1) == 1


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (5, "layer 5 does not exist: this encoder has 4 blocks, use -5 to 4"),
        ((-1, -6), "layer -6 does not exist"),
        ((-1, 2, 4), "layers -1 and 4 are the same: name it once"),
        ((2, 2), "layers 2 and 2 are the same"),
    ],
)
def test_what_names_no_layer_or_one_twice_is_refused(choice, expected):
    with pytest.raises(LiditError, match=expected):
        chosen_layers(choice, 4)


def test_layers_are_counted_as_hidden_states():
    assert [blocks_below(layer, 4) for layer in (0, 4, -1, -5)] == [0, 4, 4, 0]
