"""Digests of settings: all that changes features counts, and later versions agree."""

import dataclasses
import json

import pytest

from lidit_jax import encoders
from lidit_jax.config.schema import EncoderConfig
from lidit_jax.encoders.conditions import PromptEncoders
from lidit_jax.encoders.settings_digest import settings_digest
from lidit_jax.errors import LiditError
from tests.tiny_encoders import save_encoder


def test_a_new_field_with_its_default_changes_nothing():
    before = dataclasses.make_dataclass("Model", [("width", int)])
    after = dataclasses.make_dataclass("Model", [("width", int), ("new", tuple, (1,))])
    assert settings_digest(before(8)) == settings_digest(after(8))
    assert settings_digest(after(8)) != settings_digest(after(8, (2,)))
    assert settings_digest(1, (2, 3)) != settings_digest((1, 2), 3)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
        ("tokenizer_config.json", {"add_bos_token": True, "bos_token": "<end>"}),
    ],
)
def test_an_encoder_whose_settings_were_changed_is_another_one(tmp_path, file, change):
    """Its weights and tokenizer.json have the same digests."""
    folder = save_encoder(tmp_path / "encoder", "llama")
    config = EncoderConfig(sources=(str(folder),))
    trained_with = PromptEncoders(config).description
    PromptEncoders(config).check(trained_with)
    older = [{name: one for name, one in trained_with[0].items() if name != "settings"}]
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | change))
    changed = PromptEncoders(config)
    assert changed.description[0]["fingerprint"] == trained_with[0]["fingerprint"]
    with pytest.raises(LiditError, match="is not the one of this checkpoint: its settings is"):
        changed.check(trained_with)
    changed.check(older)  # from a version that did not store it
    assert encoders.load(str(folder)).settings == changed.streams[0].settings
