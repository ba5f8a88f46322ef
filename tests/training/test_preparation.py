"""Preparation: what a run reads and computes before its first step, and what belongs to weights."""

import numpy as np
import pytest

from lidit_jax.errors import LiditError
from lidit_jax.training.preparation import prepare


@pytest.fixture(scope="module")
def prepared(tiny_config):
    return prepare(tiny_config())


def test_a_checkpoint_remembers_what_the_model_was_trained_with(prepared):
    encoders = prepared.metadata["encoders"]
    assert [encoder["layer"] for encoder in encoders] == [-3, -1]
    assert all(len(encoder["fingerprint"]["weights"]) == 64 for encoder in encoders)
    assert {encoder["prefix"] for encoder in encoders} == {"Draw:\n"}
    assert prepared.metadata["autoencoder"] == "pixels"
    assert np.shape(prepared.metadata["latents"]["deviation"]) == (3,)


def test_a_fixed_prompt_that_is_too_long_is_refused_before_anything_is_prepared(
    tiny_config, tmp_path
):
    config = tiny_config(f"training.prompts=('{'x' * 97}',)", f"data.cache_dir={tmp_path}/new")
    with pytest.raises(LiditError, match="has 97 tokens, the limit is 96: shorten it or raise"):
        prepare(config)
    assert not (tmp_path / "new").exists()


def test_captions_that_are_cut_are_counted(tiny_config, tmp_path, capsys):
    prepare(tiny_config("encoders.max_prompt_tokens=14", f"data.cache_dir={tmp_path}"))
    assert "captions exceed config.encoders.max_prompt_tokens" in capsys.readouterr().out
