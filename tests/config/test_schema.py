"""The configuration as checkpoints store it."""

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


def test_what_it_does_not_know_is_refused_by_name():
    with pytest.raises(LiditError, match=r"config\.model has no field 'color'"):
        Config.from_dict({"model": {"color": 1}})
    with pytest.raises(LiditError, match=r"config\.model\.width='8' is str, must be int"):
        Config.from_dict({"model": {"width": "8"}})
