"""What is known of a model before its weights are loaded."""

import dataclasses

import pytest

from lidit_jax.checkpoints.opener import open_model
from lidit_jax.errors import LiditError
from lidit_jax.sampling.opened_model import OpenedModel
from tests.pytorch.exported import make_bundle


@pytest.fixture(scope="module")
def opened(tiny_config, tmp_path_factory):
    folder = make_bundle(tmp_path_factory.mktemp("model"), tiny_config())
    # Whatever is asked below is answered without the weights.
    (folder / "model.safetensors").write_bytes(b"")
    return OpenedModel(open_model(folder))


def test_settings_are_those_of_the_checkpoint_with_changes(opened):
    settings = opened.settings(steps=7, sampler=None)
    assert (settings.sampler, settings.steps) == ("euler", 7)
    with pytest.raises(LiditError, match="sampler 'ddim' does not fit process 'flow': choose one"):
        opened.settings(sampler="ddim")


def test_sizes_and_samplers_are_known(opened):
    assert opened.size_step == 8
    assert "unipc" in opened.samplers


def test_a_guide_must_mean_the_same(opened, monkeypatch):
    opened.check_guide(opened)
    other = OpenedModel(opened.saved)
    other.provenance = dataclasses.replace(other.provenance, latent_mean=(1.0,))
    with pytest.raises(LiditError, match="the guide model has other latents: use an earlier"):
        opened.check_guide(other)
