"""The autoencoder under the same loop: trains, diverges cleanly, is exported and then used."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from lidit_jax.autoencoders.frozen import load_frozen_autoencoder
from lidit_jax.checkpoints.orbax import Checkpoints
from lidit_jax.cli import main
from lidit_jax.config.load import load_recipe
from lidit_jax.config.schema import VAEConfig
from lidit_jax.errors import LiditError
from lidit_jax.training.loop import train
from lidit_jax.training.preparation import prepare
from lidit_jax.training.tasks import make_task

TINY = [
    "vae.width=8",
    "vae.blocks=1",
    "vae.channels=4",
    "data.image_size=32",
    "data.train_records=64",
    "data.validation_records=5",
    "optimizer.warmup_steps=0",
    "training.batch_size=8",
    "training.log_every=4",
    "training.checkpoint_every=1",
    "training.eval_every=8",
    "training.steps=8",
]


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def workdir(compiled_once, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    train(load_recipe("demo_vae", TINY), folder)
    return folder


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "vae"
    assert main(["export", f"--checkpoint={workdir}", f"--out={folder}"]) == 0
    return folder


def test_it_learns_and_shows_pictures_beside_their_reconstructions(workdir):
    logged = [record["l1"] for record in metrics(workdir) if "l1" in record]
    assert logged[-1] < logged[0]
    assert (workdir / "images" / "step_000008.png").is_file()


def test_validation_counts_every_record_once_on_eight_devices(workdir, compiled_once):
    """Five records fill no batch of eight."""
    task = make_task(load_recipe("demo_vae", TINY))
    with Checkpoints(workdir) as checkpoints:
        params = checkpoints.weights(8, "params").load()
    batches = [batch.arrays for batch in task.data.validation(8, (0, 1))]
    assert sum(batch["valid"].sum() for batch in batches) == task.data.validation_rows == 5
    images = np.concatenate([batch["image"][batch["valid"]] for batch in batches])
    batch = task.encode({}, {"image": images})
    expected = jax.jit(task.validation_losses)(params, {}, batch).mean()
    (logged,) = (r["validation_loss"] for r in metrics(workdir) if "validation_loss" in r)
    assert logged == pytest.approx(float(expected), rel=1e-5)


def test_divergence_stops_and_spoils_no_checkpoint(compiled_once, tmp_path):
    """The host looks some steps late; meanwhile no update that is not finite is applied."""
    overrides = [*TINY, "optimizer.learning_rate=1e30", "training.keep_checkpoints=9"]
    with pytest.raises(LiditError, match="3 updates in a row were not finite, the last at step "):
        train(load_recipe("demo_vae", [*overrides, "training.stop_after_skipped=3"]), tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        saved = [checkpoints.weights(step, "params").load() for step in checkpoints.steps()]
    assert len(saved) > 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved))


def test_an_exported_autoencoder_encodes_and_decodes(exported):
    autoencoder = load_frozen_autoencoder(VAEConfig(source=str(exported)))
    assert (autoencoder.downsample, autoencoder.channels) == (8, 4)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    latents = autoencoder.encode_images(images)
    assert latents.shape == (2, 4, 4, 4)
    assert autoencoder.decode(autoencoder.params, latents).shape == images.shape


def test_a_size_that_does_not_fit_the_autoencoder_is_refused(exported, tiny_config):
    config = tiny_config(f"vae.source={exported}", "model.patch=8")
    with pytest.raises(LiditError, match=r"image_size=32 must be a multiple of 64 \(patch x"):
        prepare(config)


def test_text_to_image_and_autoencoder_are_not_confused(exported, trained, tmp_path, capsys):
    prompt = [f"--out={tmp_path}/x.png", "--prompt=a"]
    assert main(["sample", f"--checkpoint={exported}", *prompt]) == 2
    assert "holds an autoencoder: name a text-to-image checkpoint" in capsys.readouterr().err
    assert main(["export", f"--checkpoint={trained}", f"--out={tmp_path}/model"]) == 0
    with pytest.raises(LiditError, match="holds a text-to-image model"):
        load_frozen_autoencoder(VAEConfig(source=str(tmp_path / "model")))


def test_a_missing_autoencoder_is_named_with_the_way_to_one(tmp_path):
    with pytest.raises(LiditError, match=r"no autoencoder in .*, train one with configs/"):
        load_frozen_autoencoder(VAEConfig(source=str(tmp_path)))
