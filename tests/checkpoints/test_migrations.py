"""Descriptions that older versions stored, in today's form."""

import copy
import json
from pathlib import Path

import pytest

from lidit_jax.checkpoints.migrations import FORMAT, migrate
from lidit_jax.checkpoints.opener import open_model
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.checks import check
from lidit_jax.config.schema import Config
from lidit_jax.errors import LiditError

PROVENANCE = {
    "encoders": [{"source": "minilm", "layer": -1, "fingerprint": {"weights": "ab"}, "prefix": ""}],
    "crop": [26],
    "autoencoder": "pixels",
    "latents": {"mean": [0.1, 1e-7], "deviation": [0.5, 0.4]},
    "step": 8,
}
CONFIG = {
    "seed": 3,
    "model": {"width": 64},
    "diffusion": {"loss": "", "weighting": ""},
    "data": {"scene_shares": [0.5, 0.5], "textured_share": 0.25, "sized_share": 0.5},
    "training": {"matmul": "", "tracker": "", "local_checkpoints": ""},
}
FORMAT_2 = {"format": 2, "config": CONFIG} | PROVENANCE
"""A checkpoint's; an exported folder has the provenance under "metadata"."""


def test_format_2_gets_the_standard_names():
    stored = copy.deepcopy(FORMAT_2)
    migrated = migrate(stored, "here")
    assert stored == FORMAT_2, "it is not changed"
    assert migrated["format"] == FORMAT
    config = check(Config.from_dict(migrated["config"]))
    assert (config.seed, config.model.width) == (3, 64)
    assert (config.diffusion.loss, config.diffusion.weighting) == ("prediction", "none")
    assert config.data.scene_fractions == (0.5, 0.5)
    assert (config.data.textured_fraction, config.data.sized_fraction) == (0.25, 0.5)
    training = config.training
    assert (training.quantization, training.tracker) == ("none", "none")
    assert training.local_checkpoints == "", "the name of no folder"
    provenance = Provenance.from_json(migrated)
    assert provenance.prefix_lengths == (26,)
    assert (provenance.latent_mean, provenance.latent_std) == ((0.1, 1e-7), (0.5, 0.4))


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_what_was_chosen_stays(kind):
    config = {"training": {"matmul": kind, "tracker": "wandb"}, "diffusion": {"loss": "x0"}}
    migrated = migrate({"format": 2, "config": config}, "here")["config"]
    assert migrated["training"] == {"quantization": kind, "tracker": "wandb"}
    assert migrated["diffusion"] == {"loss": "x0"}


def test_an_exported_folders_provenance_is_one_level_below():
    described = {"format": 1, "config": {}, "metadata": PROVENANCE | {"format": 1}, "sha256": "ab"}
    migrated = migrate(described, "here")
    assert Provenance.from_json(migrated["metadata"]).latent_std == (0.5, 0.4)
    assert migrated["sha256"] == "ab"


def test_the_first_format_takes_every_step():
    described = {"format": 1, "config": {"model": {"remat": True}, "training": {"matmul": "fp8"}}}
    config = migrate(described, "here")["config"]
    assert config == {"model": {"remat": "full"}, "training": {"quantization": "fp8"}}


@pytest.mark.parametrize(("column", "columns"), [("", ()), ("text", ("text",))])
def test_format_3_trained_on_squares_of_one_caption_column(column, columns):
    data = {"path": "photos", "caption_column": column, "workers": 2}
    stored = {"format": 3, "config": {"data": data}}
    migrated = migrate(copy.deepcopy(stored), "here")
    assert migrate(stored, "here") == migrated
    assert data["caption_column"] == column, "it is not changed"
    found = Config.from_dict(migrated["config"]).data
    assert (found.path, found.workers) == ("photos", 2)
    assert found.buckets.shapes == 1
    assert found.captions.columns == columns
    assert check(Config.from_dict(migrated["config"])).data == found


def test_todays_format_stays_as_it_is():
    described = {"format": FORMAT, "config": {}, "prefix_lengths": [1]}
    assert migrate(described, "here") == described


def test_a_newer_format_is_refused():
    with pytest.raises(LiditError, match=f"here has format {FORMAT + 1}, newer than this version"):
        migrate({"format": FORMAT + 1}, "here")


def test_the_packaged_demo_has_todays_format():
    folder = Path(open_model("demo").folder)
    assert json.loads((folder / "config.json").read_text())["format"] == FORMAT
