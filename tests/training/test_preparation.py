"""Preparation: what a run reads and computes before its first step, and what belongs to weights."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lidit_jax.data.latent_statistics import LatentStatistics, SavedStatistics
from lidit_jax.errors import LiditError
from lidit_jax.training import preparation
from lidit_jax.training.preparation import prepare


@pytest.fixture(scope="module")
def prepared(tiny_config):
    return prepare(tiny_config())


def test_a_checkpoint_remembers_what_the_model_was_trained_with(prepared):
    encoders = prepared.provenance.encoders
    assert [encoder["layer"] for encoder in encoders] == [-3, -1]
    assert all(len(encoder["fingerprint"]["weights"]) == 64 for encoder in encoders)
    assert {encoder["prefix"] for encoder in encoders} == {"Draw:\n"}
    assert prepared.provenance.autoencoder == "pixels"
    assert np.shape(prepared.provenance.latent_std) == (3,)


def test_a_fixed_prompt_that_is_too_long_is_refused_before_anything_is_prepared(
    tiny_config, tmp_path
):
    config = tiny_config(f"training.prompts=('{'x' * 97}',)", f"data.cache_dir={tmp_path}/new")
    with pytest.raises(LiditError, match="has 97 tokens, the limit is 96: shorten it or raise"):
        prepare(config)
    assert not (tmp_path / "new").exists()


def test_captions_of_a_folder_are_the_prompts_where_none_are_given(tiny_config, tmp_path):
    for name, caption in {"a": "a red apple", "b": "x" * 200, "c": "a red apple"}.items():
        Image.new("RGB", (32, 32), "red").save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(caption)
    settings = ("data.source=folder", f"data.path={tmp_path}", f"data.cache_dir={tmp_path}/cache")
    prepared = prepare(tiny_config("training.prompts=()", *settings))
    assert prepared.prompt_texts == ("a red apple", "x" * 200)
    for mask in prepared.prompts.masks:
        apple, cut = mask.sum(axis=1)
        # One caption has 11 bytes, the other is cut at 96 as in training; a byte is a token.
        assert cut - apple == 96 - 11


def test_captions_that_are_cut_are_counted(tiny_config, tmp_path, capsys):
    prepare(tiny_config("encoders.max_prompt_tokens=14", f"data.cache_dir={tmp_path}"))
    assert "captions exceed config.encoders.max_prompt_tokens" in capsys.readouterr().out


SAVED = SavedStatistics(
    LatentStatistics(np.array([0.25, 0.5, 0.125]), np.array([2.0, 4.0, 0.5])), "pixels", "runs/a"
)


def images(prepared):
    """The first training images, as they were before they were normalized."""
    batch = next(prepared.data.batches(0, Path("unused"))).arrays
    return batch["latent"] * prepared.statistics[1] + prepared.statistics[0]


def test_a_checkpoints_statistics_normalize_the_data_of_today(tiny_config, prepared, capsys):
    ours = prepare(tiny_config(), SAVED)
    assert ours.provenance.latent_mean == tuple(SAVED.statistics.mean)
    assert ours.statistics == SAVED.statistics
    # The values are below 1, and each of four roundings is to 24 bits.
    np.testing.assert_allclose(images(ours), images(prepared), atol=4 * 2**-23)
    assert "statistics" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("choice", "saved", "reason"),
    [
        ("recompute", SAVED, "config.data.latent_statistics='recompute'"),
        ("keep", SAVED._replace(autoencoder="0" * 64), "it has another autoencoder"),
    ],
)
def test_statistics_are_computed_anew_on_demand_or_for_another_autoencoder(
    choice, saved, reason, tiny_config, prepared, capsys
):
    ours = prepare(tiny_config(f"data.latent_statistics={choice}"), saved)
    assert ours.provenance.latent_mean == prepared.provenance.latent_mean
    line = f"latent statistics are not those of runs/a but computed anew ({reason}): mean (0.250"
    assert line in capsys.readouterr().out


def test_statistics_are_those_of_process_0_on_all(tiny_config, monkeypatch):
    """A second process computes none, whatever its own devices would give."""
    theirs = [[0.25, 0.5, 0.125], [2.0, 4.0, 0.5]]
    monkeypatch.setattr(preparation.jax, "process_index", lambda: 1)
    monkeypatch.setattr(preparation, "all_gather", lambda mine: [theirs, mine])
    monkeypatch.setattr(preparation, "first_latents", None)
    found = preparation._statistics(tiny_config(), SimpleNamespace(), None, SimpleNamespace())
    assert (found.mean.tolist(), found.std.tolist()) == tuple(theirs)


def test_statistics_are_the_same_online(tiny_config, prepared):
    online = prepare(tiny_config("data.latents=online"))
    assert online.provenance.latent_mean == prepared.provenance.latent_mean
    assert online.provenance.latent_std == prepared.provenance.latent_std


def test_a_checkpoint_remembers_what_the_data_held(prepared):
    assert prepared.provenance.data == prepared.data.contents.description
    assert prepared.data.contents.records == len(prepared.data) == 64


def test_nothing_is_loaded_for_a_source_that_does_not_exist(tiny_config):
    config = tiny_config("vae.source=none", "encoders.sources=('none',)", "data.source=disk")
    with pytest.raises(LiditError, match=r"config\.data\.source='disk': choose one of"):
        prepare(config)
