"""Options that several commands share."""

import argparse

import pytest

from lidit_jax.commands.arguments import add_encoder_option


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    add_encoder_option(parser)
    return parser


def test_encoders_are_named_with_their_places(parser):
    options = parser.parse_args(["--encoder", "llm=/models/llm", "--encoder=/old/bert=new=er"])
    assert dict(options.encoders) == {"llm": "/models/llm", "/old/bert": "new=er"}
    assert dict(parser.parse_args([]).encoders) == {}


@pytest.mark.parametrize("text", ["llm", "llm=", "=/models/llm"])
def test_an_encoder_without_name_or_place_is_refused(parser, capsys, text):
    with pytest.raises(SystemExit):
        parser.parse_args([f"--encoder={text}"])
    assert f"'{text}' is not NAME=PATH" in capsys.readouterr().err
