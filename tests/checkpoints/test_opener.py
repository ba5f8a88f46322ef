"""Opening a trained model: every kind of path, parts or all of it, and what is refused."""

import json
import shutil
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.checkpoints import orbax_weights
from lidit_jax.checkpoints.bundle import save_bundle
from lidit_jax.checkpoints.migrations import FORMAT
from lidit_jax.checkpoints.opener import open_model
from lidit_jax.checkpoints.orbax import Checkpoints
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.schema import Config, TrainingConfig
from lidit_jax.errors import LiditError
from lidit_jax.sampling.pipeline import Pipeline

from .test_orbax import DAMAGE, state

STREAM = {"source": "minilm", "layer": -3, "fingerprint": {}, "prefix": ""}
PROVENANCE = Provenance((STREAM,), (26,), "pixels", (0.1, 1e-7), (0.5, 0.4))
CONFIG = Config(seed=5)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A workdir with checkpoints of steps 3 and 4, and the last as an exported folder."""
    root = tmp_path_factory.mktemp("models")
    description = {"config": CONFIG.to_dict()} | PROVENANCE.to_json()
    with Checkpoints(root / "run", TrainingConfig(keep_checkpoints=2)) as checkpoints:
        for step in (3, 4):
            checkpoints.save(step, state(step), description)
    last = open_model(root / "run")
    save_bundle(root / "exported", last.load(), last.config, last.provenance)
    return root


@pytest.fixture
def root(written, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(written, tmp_path / "copy")


def flat(params):
    return flax.traverse_util.flatten_dict(params, sep="/")


KINDS = {
    "workdir": ("run", False, 4),
    "one checkpoint": ("run/checkpoints/3", False, 3),
    "raw weights": ("run", True, 4),
    "exported folder": ("exported", False, 4),
}


@pytest.mark.parametrize(("path", "raw", "step"), KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_path_opens_and_says_the_same(path, raw, step, written):
    model = open_model(written / path, raw=raw)
    assert model.config == CONFIG
    assert model.step == step
    assert model.provenance.to_json() == PROVENANCE.to_json() | {"step": step}
    saved = state(step).params if raw else state(step).ema_params
    assert model.shapes == {name: leaf.shape for name, leaf in flat(saved).items()}
    jax.tree.map(np.testing.assert_array_equal, model.load(), saved)


@pytest.mark.parametrize(("path", "raw", "step"), KINDS.values(), ids=KINDS.keys())
def test_one_parameter_is_to_the_bit_what_loading_all_gives(path, raw, step, written):
    del step
    model = open_model(written / path, raw=raw)
    for name, leaf in flat(model.load()).items():
        read = model.read(name)
        assert isinstance(read, np.ndarray)
        assert (read.dtype, read.tobytes()) == (np.float32, np.asarray(leaf).tobytes())


def test_the_demo_that_ships_with_the_package():
    model = open_model("demo")
    assert model.provenance.prefix_lengths == (26, 26)
    assert len(model.provenance.latent_mean) == len(model.provenance.latent_std) == 3
    assert model.read("output/linear/kernel").shape == model.shapes["output/linear/kernel"]


@pytest.mark.parametrize("path", ["run", "exported"])
def test_parameters_go_where_they_are_wanted(path, written):
    mesh = jax.make_mesh((8,), ("fsdp",))
    split = jax.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    params = open_model(written / path).load({"layer": {"kernel": split}})
    assert params["layer"]["kernel"].sharding == split
    jax.tree.map(np.testing.assert_array_equal, params, state(4).ema_params)


def test_opening_a_checkpoint_reads_no_array(written, monkeypatch):
    monkeypatch.setattr(orbax_weights.ocp.PyTreeCheckpointer, "restore", None, raising=False)
    model = open_model(written / "run")
    assert (model.config, model.step) == (CONFIG, 4)
    assert model.shapes == {"layer/kernel": (16, 8), "layer/bias": (8,)}


def test_opening_an_exported_folder_reads_no_weights(root):
    """One bit of them has changed, which only those notice who read them."""
    file = root / "exported" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    model = open_model(root / "exported")
    assert (model.config, model.step) == (CONFIG, 4)
    assert model.shapes == {"layer/kernel": (16, 8), "layer/bias": (8,)}
    for use in (model.load, lambda: model.read("layer/bias")):
        with pytest.raises(LiditError, match=r"model\.safetensors is damaged: its sha256 is not"):
            use()


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_named(damage, root):
    step = root / "run" / "checkpoints" / "4"
    damage(step)
    for use in (lambda model: model.load(), lambda model: model.read("layer/kernel")):
        with pytest.raises(LiditError) as refusal:
            use(open_model(root / "run"))
        message = str(refusal.value)
        assert message.startswith(f"cannot restore checkpoint {step}: ")
        assert message.endswith("; delete that folder to continue from the previous one")
        assert "\n" not in message
    assert open_model(root / "run" / "checkpoints" / "3").step == 3


def rewrite(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("path", ["run", "exported"])
def test_a_newer_format_asks_for_an_upgrade(path, root):
    files = {
        "run": root / "run" / "checkpoints" / "4" / "metadata" / "metadata",
        "exported": root / "exported" / "config.json",
    }
    rewrite(files[path], format=FORMAT + 1)
    with pytest.raises(LiditError, match=f"has format {FORMAT + 1}, newer than .*: upgrade"):
        open_model(root / path)


def test_a_part_of_the_provenance_that_is_lost_is_named(root):
    file = root / "run" / "checkpoints" / "4" / "metadata" / "metadata"
    content = json.loads(file.read_text())
    del content["latents"]
    file.write_text(json.dumps(content))
    expected = r"cannot restore checkpoint .*/4: \"it lacks 'latents'\"; delete"
    with pytest.raises(LiditError, match=expected):
        open_model(root / "run")


def test_what_is_no_model_is_named(tmp_path):
    with pytest.raises(LiditError, match=r"no checkpoint in .*/none: name a workdir of"):
        open_model(tmp_path / "none")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(
        LiditError, match="has no complete checkpoint yet: let `lidit train` continue"
    ):
        open_model(tmp_path)


def test_a_step_that_is_not_there_is_named_with_those_that_are(written):
    with pytest.raises(LiditError, match=r"has no checkpoint of step 5: it has \[3, 4\]"):
        open_model(written / "run" / "checkpoints" / "5")


def test_an_exported_folder_has_no_raw_weights(written):
    with pytest.raises(LiditError, match="exported holds averaged weights only: leave out --raw"):
        open_model(written / "exported", raw=True)


def test_an_autoencoder_opens_and_draws_nothing(tmp_path):
    values = Config().to_dict()
    values["training"]["task"] = "vae"
    params = {"encoder": {"bias": jnp.ones(3)}}
    save_bundle(tmp_path / "vae", params, Config.from_dict(values), Provenance(step=8))
    model = open_model(tmp_path / "vae")
    assert model.provenance == Provenance(step=8)
    with pytest.raises(LiditError, match="vae holds an autoencoder: name a text-to-image checkpo"):
        Pipeline.from_checkpoint(tmp_path / "vae")


def test_every_version_opens_the_first_format():
    """Written by the first version, and kept as it was."""
    model = open_model(Path(__file__).parent / "format_1")
    assert (model.config, model.provenance) == (Config(seed=4), Provenance(step=4))
    jax.tree.map(np.testing.assert_array_equal, model.load(), state(4).ema_params)
    np.testing.assert_array_equal(model.read("layer/kernel"), np.full((16, 8), 104.0))


def test_an_exported_folder_of_the_first_format_opens(root):
    """It knew fewer fields, said `remat` with a truth, and repeated the format number."""
    file = root / "exported" / "config.json"
    old = {"seed": 7, "model": {"width": 64, "remat": True}}
    rewrite(file, format=1, config=old, metadata=PROVENANCE.to_json() | {"format": 1})
    model = open_model(root / "exported")
    assert (model.config.seed, model.config.model.remat, model.config.model.depth) == (
        7,
        "full",
        28,
    )
    assert model.provenance == PROVENANCE
