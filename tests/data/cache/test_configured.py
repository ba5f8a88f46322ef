"""Caches of a configuration: a batch is the same with and without them."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.autoencoders.frozen import FrozenAutoencoder
from lidit_jax.config.load import load_recipe
from lidit_jax.data.batches import BatchReader
from lidit_jax.data.cache.configured import configured_latents, configured_text
from lidit_jax.data.opened_data import open_data
from lidit_jax.encoders.conditions import PromptEncoders
from lidit_jax.errors import LiditError
from tests.numerics import assert_rounded_to_bfloat16, rounding

PIXELS = FrozenAutoencoder(None, {}, "pixels")


@pytest.fixture(scope="module")
def config(repository, tiny_encoders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    return lambda *overrides: load_recipe(
        str(repository / "tests" / "tiny_recipe.py"),
        [
            f"encoders.sources={tiny_encoders}",
            f"data.cache_dir={folder}",
            "data.train_records=32",
            "data.validation_records=8",
            *overrides,
        ],
    )


@jax.jit
def encoded(images):
    return (images.astype(jnp.float32) / 127.5 - 1.0).astype(jnp.float16)


@pytest.mark.numeric
def test_cached_batches_are_what_online_ones_are_encoded_to(config, compiled_once):
    config = config()
    data, encoders = open_data(config, 8), PromptEncoders(config.encoders)
    latents = configured_latents(config, data, PIXELS)
    text = configured_text(config, data, encoders)
    assert latents is not None
    assert text is not None
    for order, count in ((data.order, 3), (data.held_out, data.held_out.batches)):
        common = (data.sources, order, data.shapes, 0, config.data.reading)
        online = BatchReader(*common, config.data.augmentation)
        cached = BatchReader(*common, config.data.augmentation, latents=latents, text=text)
        cached = pickle.loads(pickle.dumps(cached))
        for number in range(count):
            ours, theirs = cached.read(number), online.read(number)
            assert (ours.bucket, ours.skipped) == (theirs.bucket, theirs.skipped)
            np.testing.assert_array_equal(ours.records, theirs.records)
            np.testing.assert_array_equal(ours.boxes, theirs.boxes)
            assert ours.latent is not None
            assert theirs.image is not None
            np.testing.assert_array_equal(ours.latent, encoded(theirs.image))
            assert ours.features is not None
            assert ours.masks is not None
            assert theirs.captions is not None
            exact, _ = encoders.encode(theirs.captions, "truncate")
            for mine, mask, features, valid in zip(
                ours.features, ours.masks, exact.features, exact.masks, strict=True
            ):
                assert mask.sum() == valid.sum()
                assert_rounded_to_bfloat16(
                    mine[mask], np.asarray(features)[np.asarray(valid)], rounding(64, 24)
                )


def test_online_ones_have_no_cache(config):
    online = config("data.latents=online", "data.text_features=online")
    data = open_data(online, 8)
    assert configured_latents(online, data, PIXELS) is None
    assert configured_text(online, data, PromptEncoders(online.encoders)) is None


def test_missing_ones_can_be_refused(config):
    refusing = config("data.cache_missing=refuse", "data.train_records=48")
    with pytest.raises(LiditError, match=r"latents is missing .*the data \(records.*`lidit cache`"):
        configured_latents(refusing, open_data(refusing, 8), PIXELS)
