"""Latents of a source: what the autoencoder says, in half precision, made once."""

import numpy as np
import pytest
from lidit_jax.data.latents import prepare_latents

from lidit_jax.autoencoders.frozen import FrozenAutoencoder
from lidit_jax.data import latents as module
from lidit_jax.data.scenes.source import SceneSource

PIXELS = FrozenAutoencoder(None, {}, "pixels")


@pytest.fixture
def source():
    return SceneSource("train", records=10, size=16)


def quiet(done, total):
    pass


def test_pixels_are_their_own_latents(source, tmp_path):
    latents = prepare_latents(source, PIXELS, tmp_path, quiet)
    assert latents.shape == (10, 16, 16, 3)
    assert latents.dtype == np.float16
    for i in range(10):
        expected = source[i]["image"] / 127.5 - 1
        np.testing.assert_allclose(latents[i].astype(np.float64), expected, atol=2**-11)


def test_an_interrupted_preparation_equals_an_uninterrupted_one(source, tmp_path, monkeypatch):
    whole = prepare_latents(source, PIXELS, tmp_path / "whole", quiet)
    monkeypatch.setattr(module, "_CHUNK", 4)
    monkeypatch.setattr(module, "_BATCH", 3)

    def break_off(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_latents(source, PIXELS, tmp_path / "parts", break_off)
    reports = []
    parts = prepare_latents(
        source, PIXELS, tmp_path / "parts", lambda done, _: reports.append(done)
    )
    assert reports == [4, 8, 10]
    np.testing.assert_array_equal(parts, whole)


def test_another_source_or_autoencoder_lies_elsewhere(source, tmp_path):
    prepare_latents(source, PIXELS, tmp_path, quiet)
    prepare_latents(SceneSource("heldout", records=10, size=16), PIXELS, tmp_path, quiet)
    prepare_latents(source, FrozenAutoencoder(None, {}, "another"), tmp_path, quiet)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 3
