"""The recipe of the paper's kind of autoencoder, at a tiny size: it trains, and is then used."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.autoencoders.frozen import load_frozen_autoencoder
from lidit_jax.cli import main
from lidit_jax.config.load import load_recipe
from lidit_jax.config.schema import VAEConfig
from lidit_jax.training.loop import train
from lidit_jax.training.tasks import make_task
from tests.quick import random_parameters

TINY = [
    "data.source=scenes",
    "data.image_size=16",
    "data.train_records=64",
    "data.validation_records=8",
    "vae.width=8",
    "vae.multipliers=(1, 2)",
    "vae.downsample=2",
    "vae.channels=4",
    "vae.blocks=1",
    "vae.norm_groups=4",
    "optimizer.learning_rate=3e-3",
    "optimizer.warmup_steps=0",
    "training.batch_size=8",
    "training.log_every=4",
    "training.eval_every=16",
    "training.image_every=16",
    "training.steps=16",
]


def test_it_trains_is_exported_and_read_back(compiled_once, tmp_path):
    workdir, folder = tmp_path / "run", tmp_path / "vae"
    train(load_recipe("vae_16ch", TINY), workdir)
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    logged = [record for record in records if "l1" in record]
    assert logged[-1]["l1"] < 0.9 * logged[0]["l1"]
    assert all(np.isfinite([r["kl"], r["gradient_l1"]]).all() for r in logged)

    assert main(["export", f"--checkpoint={workdir}", f"--out={folder}"]) == 0
    autoencoder = load_frozen_autoencoder(VAEConfig(source=str(folder), tile=8))
    assert (autoencoder.downsample, autoencoder.channels) == (2, 4)
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    latents = autoencoder.encode_images(images)
    assert latents.shape == (2, 8, 8, 4)
    assert autoencoder.decode(autoencoder.params, latents).shape == images.shape


@pytest.fixture(scope="module")
def task():
    return make_task(load_recipe("vae_16ch", [*TINY, "vae.dtype=float32"]))


@pytest.fixture(scope="module")
def images(task):
    """Of one shape, as the loss takes them."""
    batch = next(task.data.batches(0, Path("unused"))).arrays
    return task.encode({}, {"image": jnp.asarray(batch["image"])})["image"]


def random_weights(task):
    return random_parameters(lambda key: {"params": task.init(key)})


def test_the_loss_is_the_sum_of_its_weighted_terms(task, images):
    batch = {"image": images[:2], "index": jnp.arange(2)}
    loss, terms = jax.jit(task.loss)(random_weights(task), {}, batch, jax.random.key(0))
    expected = terms["l1"] + 1e-6 * terms["kl"] + 1.0 * terms["gradient_l1"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert set(terms) == {"l1", "kl", "gradient_l1"}


def test_latents_are_drawn_by_step_and_record_wherever_a_record_is(task, images):
    """So that meshes and micro-batches of any size train alike."""
    params, loss = random_weights(task), jax.jit(task.loss)

    def of(order, key=0):
        order = jnp.asarray(order)
        return loss(params, {}, {"image": images[order], "index": order}, jax.random.key(key))[0]

    whole = of([0, 1, 2, 3])
    np.testing.assert_allclose(of([2, 0, 3, 1]), whole, rtol=1e-5)
    np.testing.assert_allclose((of([3, 1]) + of([0, 2])) / 2, whole, rtol=1e-5)
    assert abs(of([0, 1, 2, 3], key=1) - whole) > 1e-4 * whole
