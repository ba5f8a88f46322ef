"""The configuration as checkpoints store it: what comes back, and what is refused by name."""

import json

import pytest

from lidit_jax.config.schema import Config, ModelConfig
from lidit_jax.errors import LiditError


def test_what_was_stored_comes_back():
    config = Config(seed=5, model=ModelConfig(width=64, position="rope"))
    assert Config.from_dict(config.to_dict()) == config
    assert Config.from_dict(json.loads(config.to_json())) == config, "lists for tuples"


def test_a_configuration_from_before_a_field_existed_gets_its_default():
    values = Config().to_dict()
    del values["model"]["scan_unroll"]
    assert Config.from_dict(values) == Config()
    assert Config.from_dict({"seed": 4}) == Config(seed=4)


MISTAKES = {
    "unknown field": ({"model": {"widht": 1}}, "config.model has no field 'widht': did you mean "),
    "unknown group": ({"colour": 1}, "config has no field 'colour': it has 'seed', "),
    "text for a number": (
        {"model": {"width": "8"}},
        "config.model.width='8' is str, must be int",
    ),
    "number for a truth": (
        {"model": {"refiner": {"gate": 1}}},
        "config.model.refiner.gate=1 is int, must be bool",
    ),
    "value for a group": ({"model": 8}, "config.model=8 must be a group of fields"),
    "no tuple": ({"encoders": {"layers": -3}}, "config.encoders.layers=-3 must be a tuple of int"),
    "other items": (
        {"encoders": {"layers": ["a"]}},
        "config.encoders.layers=['a'] must be a tuple of int",
    ),
    "no group at all": ([1], "config=[1] must be a group of fields"),
}


@pytest.mark.parametrize(("values", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_what_it_does_not_know_is_refused_by_name(values, expected):
    with pytest.raises(LiditError) as refusal:
        Config.from_dict(values)
    assert str(refusal.value).startswith(expected)


def test_a_whole_number_stands_for_a_float():
    config = Config.from_dict({"optimizer": {"learning_rate": 1}})
    assert isinstance(config.optimizer.learning_rate, float)
