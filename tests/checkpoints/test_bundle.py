"""Folders to share: what goes in comes out, and damage is named."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from lidit_jax.checkpoints.bundle import Bundle, is_bundle, public_description, save_bundle
from lidit_jax.checkpoints.migrations import FORMAT
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.data_config import DataConfig
from lidit_jax.config.schema import Config, EncoderConfig, TrainingConfig, VAEConfig
from lidit_jax.errors import LiditError

PARAMS = {
    "block": {"kernel": np.linspace(-3, 3, 24, dtype=np.float32).reshape(4, 6)},
    "scale": np.float32([1, 1e-3, 6e4]),
}
STREAM = {"source": "minilm", "layer": -3, "fingerprint": {}, "prefix": ""}
PROVENANCE = Provenance((STREAM,), (7,), "pixels", (0.1, 1e-7), (0.5, 0.4), step=8)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    save_bundle(folder, PARAMS, Config(seed=5), PROVENANCE)
    return folder


def rewrite(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_half_precision_round_trip(folder):
    bundle = Bundle(folder)
    params = bundle.load()
    jax.tree.map(
        lambda got, want: np.testing.assert_array_equal(got, want.astype(np.float16)),
        params,
        PARAMS,
    )
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
    assert bundle.config == Config(seed=5)
    assert bundle.provenance == PROVENANCE
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_full_precision_is_exact(tmp_path):
    save_bundle(tmp_path, PARAMS, Config(), PROVENANCE, dtype="float32")
    jax.tree.map(np.testing.assert_array_equal, Bundle(tmp_path).load(), PARAMS)


def test_the_fingerprint_follows_the_weights(folder, tmp_path):
    first = Bundle(folder).fingerprint
    save_bundle(tmp_path / "same", PARAMS, Config(), Provenance())
    save_bundle(tmp_path / "other", PARAMS | {"scale": np.zeros(3)}, Config(), Provenance())
    assert Bundle(tmp_path / "same").fingerprint == first
    assert Bundle(tmp_path / "other").fingerprint != first


@pytest.mark.filterwarnings("error")
def test_weights_that_half_precision_cannot_hold_are_named_and_nothing_is_written(tmp_path):
    params = {"layer": {"kernel": np.float32([1, 7e4])}}
    with pytest.raises(LiditError, match=r"layer/kernel .* not finite in float16"):
        save_bundle(tmp_path / "model", params, Config(), Provenance())
    assert not (tmp_path / "model").exists()
    save_bundle(tmp_path / "model", params, Config(), Provenance(), dtype="float32")


def truncate(file):
    file.write_bytes(file.read_bytes()[:-3])


def tamper(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "weights truncated": (
        lambda folder: truncate(folder / "model.safetensors"),
        "model.safetensors is damaged: its sha256 is not the one in config.json; copy the folder",
    ),
    "one bit of the weights": (
        lambda folder: tamper(folder / "model.safetensors"),
        "model.safetensors is damaged: its sha256 is not the one in config.json; copy the folder",
    ),
    "weights missing": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "is not a model folder: cannot read .*model.safetensors",
    ),
    "description truncated": (lambda folder: truncate(folder / "config.json"), "is damaged .*copy"),
    "description missing": (
        lambda folder: (folder / "config.json").unlink(),
        "is not a model folder: cannot read .*config.json",
    ),
    "description of something else": (
        lambda folder: (folder / "config.json").write_text("[1]"),
        "is damaged .*copy the folder again",
    ),
    "no checksum": (
        lambda folder: (folder / "config.json").write_text('{"format": 1}'),
        "is damaged .*sha256.*copy the folder again",
    ),
    "newer format": (
        lambda folder: rewrite(folder, format=FORMAT + 1),
        f"has format {FORMAT + 1}, newer than this version's {FORMAT}: upgrade lidit-jax",
    ),
    "provenance of something else": (
        lambda folder: rewrite(folder, metadata=[1]),
        "is damaged .*copy the folder again",
    ),
    "part of the provenance lost": (
        lambda folder: rewrite(folder, metadata={"encoders": []}),
        "is damaged .*'prefix_lengths'.*copy the folder again",
    ),
    "value out of range": (
        lambda folder: rewrite(folder, config={"seed": -1}),
        "config.seed=-1: must be from 0 to",
    ),
    "unknown field": (
        lambda folder: rewrite(folder, config={"color": 1}),
        "config has no field 'color'",
    ),
}


@pytest.mark.parametrize(("damage", "expected"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named_with_the_remedy(damage, expected, folder):
    damage(folder)
    with pytest.raises(LiditError, match=expected) as refusal:
        Bundle(folder).load()
    assert "\n" not in str(refusal.value)


def test_a_bundle_is_known_by_its_two_files(folder, tmp_path):
    assert is_bundle(folder)
    assert not is_bundle(tmp_path)
    shutil.copy(folder / "config.json", tmp_path)
    assert not is_bundle(tmp_path), "a workdir has a config.json too"


def many():
    """Weights for several files of 4 KB."""
    rng = np.random.default_rng(0)
    return {f"layer{i}": {"kernel": rng.normal(size=(16, 32)).astype(np.float32)} for i in range(9)}


@pytest.fixture
def divided(tmp_path):
    """A folder whose weights are in files of 8 KB at most: headers have their share."""
    folder = tmp_path / "divided"
    save_bundle(folder, many(), Config(seed=5), PROVENANCE, largest_file=8192)
    return folder


def test_weights_in_several_files_are_the_same(divided, tmp_path):
    files = sorted(path.name for path in divided.glob("*.safetensors"))
    count = len(files)
    assert count > 1
    assert files == [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    assert all((divided / name).stat().st_size <= 8192 for name in files)
    assert is_bundle(divided)
    save_bundle(tmp_path / "one", many(), Config(), PROVENANCE)
    several, one = Bundle(divided), Bundle(tmp_path / "one")
    jax.tree.map(np.testing.assert_array_equal, several.load(), one.load())
    assert several.shapes == one.shapes
    index = json.loads((divided / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(one.shapes)


def test_damage_of_one_of_several_files_is_named(divided):
    tamper(sorted(divided.glob("*.safetensors"))[-1])
    with pytest.raises(LiditError, match=r"one of .* is damaged: its sha256 is not the one in"):
        Bundle(divided).load()


def test_a_tensor_larger_than_a_file_is_refused(tmp_path):
    with pytest.raises(LiditError, match=r"layer0/kernel alone has .*: allow larger files"):
        save_bundle(tmp_path, many(), Config(), PROVENANCE, largest_file=5000)


def test_files_of_another_size_make_room(divided):
    save_bundle(divided, many(), Config(seed=5), PROVENANCE)
    left = sorted(path.name for path in divided.iterdir())
    assert left == ["config.json", "model.safetensors"]


def test_writing_again_replaces_what_was_there(folder):
    save_bundle(folder, {"scale": np.ones(1)}, Config(), Provenance())
    assert set(Bundle(folder).load()) == {"scale"}


def test_others_learn_no_private_folder_from_a_description(tmp_path):
    sources = ("/home/me/secret/llm", "~/secret/enc.gguf", "org/model/text_encoder_2", "smollm2")
    mixture = ("parquet:/secret/b/", "index:file:///secret/c", "parquet:hf://datasets/org/d")
    config = Config(
        encoders=EncoderConfig(sources=sources),
        vae=VAEConfig(source="/secret/vae"),
        data=DataConfig(path="/secret/a/*.tar", mixture=mixture, cache_dir="/secret/cache"),
        training=TrainingConfig(init_from="~me/secret/run", local_checkpoints="/secret/disk"),
    )
    streams = tuple(STREAM | {"source": source} for source in sources)
    provenance = dataclasses.replace(PROVENANCE, encoders=streams, prefix_lengths=(7,) * 4)
    save_bundle(tmp_path, PARAMS, config, provenance)
    text = public_description((tmp_path / "config.json").read_text())
    assert "secret" not in text
    (tmp_path / "config.json").write_text(text)
    known = Bundle(tmp_path)
    public = ("llm", "enc.gguf", "org/model/text_encoder_2", "smollm2")
    assert known.config.encoders.sources == public
    assert tuple(one["source"] for one in known.provenance.encoders) == public
    assert known.config.data.path == "*.tar"
    assert known.config.data.mixture == ("parquet:b", "index:c", "parquet:hf://datasets/org/d")
    assert (known.config.vae.source, known.config.training.init_from) == ("vae", "run")
    assert known.load().keys() == PARAMS.keys(), "the sum of the weights still holds"
    theirs = json.dumps({"_class_name": "AutoencoderKL", "_name_or_path": "/secret/sd"})
    assert json.loads(public_description(theirs))["_name_or_path"] == "sd"
