"""Pictures that the step encodes: the latents of the disk, and a run that ends as it should."""

import multiprocessing
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.autoencoders.frozen import FrozenAutoencoder, build_autoencoder
from lidit_jax.config.schema import VAEConfig
from lidit_jax.training import preparation
from lidit_jax.training.lidit_task import LIDiTTask
from lidit_jax.training.loop import train
from lidit_jax.training.preparation import prepare
from tests.training.test_resume import losses

ONLINE = "data.latents=online"
KEY = jax.random.key(7)


def task_of(config):
    return LIDiTTask(config, prepare(config))


def first_batch(task):
    return next(task.data.batches(0, Path("unused"))).arrays


@pytest.fixture(scope="module")
def tasks(tiny_config):
    return task_of(tiny_config()), task_of(tiny_config(ONLINE))


def same_latents(cached, online):
    """Both are rounded to float16, of 11 bits; computed in float32 by two programs, a value on the
    edge may round to its neighbor. Normalized, values are below 8."""
    stored, read = first_batch(cached), first_batch(online)
    assert read["image"].dtype == np.uint8
    encoded = jax.jit(online.encode)(online.frozen, read)
    assert "image" not in encoded
    np.testing.assert_array_equal(encoded["index"], stored["index"])
    found, expected = encoded["latent"], stored["latent"]
    assert found.dtype == expected.dtype
    assert np.abs(expected).max() < 8
    np.testing.assert_allclose(found, expected, rtol=2**-10, atol=8 * 2**-11)


def test_pixels_are_those_of_the_disk(tasks):
    cached, online = tasks
    same_latents(cached, online)
    assert online.provenance == cached.provenance, "statistics too"


def test_the_loss_is_that_of_the_disk(tasks):
    cached, online = tasks
    params = nn.unbox(jax.jit(cached.init)(jax.random.key(0)))

    def loss(task):
        def compute(params, frozen, batch):
            return task.loss(params, frozen, task.encode(frozen, batch), KEY)[0]

        return float(jax.jit(compute)(params, task.frozen, first_batch(task)))

    # A mean over 16 x 32 x 32 x 3 values, each of float32.
    assert loss(online) == pytest.approx(loss(cached), rel=1e-5)


def test_an_autoencoder_runs_in_the_step(tiny_config, tmp_path, monkeypatch):
    model = build_autoencoder(VAEConfig(width=32, channels=4))
    keys = jax.random.split(KEY, 1)
    params = nn.unbox(jax.jit(model.init)(KEY, jnp.zeros((1, 32, 32, 3)), keys)["params"])
    autoencoder = FrozenAutoencoder(model, params, "untrained")
    monkeypatch.setattr(preparation, "load_frozen_autoencoder", lambda config: autoencoder)
    settings = ("vae.source=untrained", "model.patch=2", f"data.cache_dir={tmp_path}")
    cached, online = task_of(tiny_config(*settings)), task_of(tiny_config(*settings, ONLINE))
    assert online.frozen.autoencoder
    assert not cached.frozen.autoencoder, "nothing that the step does not read"
    same_latents(cached, online)


def test_nothing_is_stored(tiny_config, tmp_path):
    prepare(tiny_config(ONLINE, "data.text_features=online", f"data.cache_dir={tmp_path}"))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_stopped_and_goes_on_with_other_readers_ends_as_one_that_was_not(
    tiny_config, trained, tmp_path, terminated
):
    """Its losses are those of prepared latents, and no process is left."""

    def readers():
        found = multiprocessing.active_children()
        assert len(found) == 2
        return [reader.pid for reader in found]

    settings = (ONLINE, "training.image_every=0")
    with terminated(3, readers):
        assert train(tiny_config(*settings, "data.workers=2"), tmp_path).step == 3
    assert multiprocessing.active_children() == []
    assert train(tiny_config(*settings, "data.workers=1"), tmp_path).step == 8
    assert multiprocessing.active_children() == []
    assert losses(tmp_path) == pytest.approx(losses(trained), rel=1e-5)
