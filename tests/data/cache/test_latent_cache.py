"""Cached latents: those that training computes, of every record in use, in any order."""

import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.autoencoders.frozen import FrozenAutoencoder
from lidit_jax.config.data_settings import ReadingSettings
from lidit_jax.data.cache import layout
from lidit_jax.data.cache.latent_cache import latent_cache
from lidit_jax.data.cache.store import Missing
from lidit_jax.data.record_reading import UnusableRecordError
from lidit_jax.errors import LiditError
from tests.data.cache.stand_ins import SHAPES, files, opened, used_records
from tests.data.stand_ins import NOISE, broken_off

PIXELS = FrozenAutoencoder(None, {}, "pixels")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(layout, "_SHARD_BYTES", 2 * 16 * 24 * 3 * 2)


def make(data, folder, missing: Missing = "build", reading=None, **options):
    reading = ReadingSettings(**(reading or {}))
    return latent_cache(data, PIXELS, folder, reading, missing, **options)


@jax.jit
def in_training(image):
    """As `LIDiTTask._latent`, before the normalization."""
    return (image.astype(jnp.float32) / 127.5 - 1.0).astype(jnp.float16)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_record_in_use_has_the_latent_that_training_computes(tmp_path, workers):
    data = opened()
    cache = pickle.loads(pickle.dumps(make(data, tmp_path, workers=workers)))
    for record, source, own in used_records(data):
        shape = SHAPES[data.used[source].bucket(own)]
        image = np.broadcast_to(np.array([own % 256, own // 256, 7], np.uint8), (*shape, 3))
        latent = cache.read(record)
        assert latent.dtype == np.float16
        np.testing.assert_array_equal(latent, in_training(image))


def test_records_are_divided_into_shards_by_bucket(tmp_path):
    data = opened()
    cache = make(data, tmp_path)
    names = [shard.name for shard in cache.store.layout.shards()]
    counts = np.sum([members.counts for members in data.used], axis=0)
    assert len(names) == np.sum(-(-counts // 2)), "two records of one bucket in each"
    assert {path.name for path in cache.store.folder.glob("*.array_record")} == {*names}
    assert cache.store.facts.total["entries"] == sum(1 for _ in used_records(data))
    assert cache.store.facts.total["unusable"] == 0


def test_unusable_records_are_listed_and_raise_again_when_they_are_read(tmp_path):
    data = opened({3: b"text", 4: FileNotFoundError(2, "No such file or directory")})
    reading = {"missing": "skip", "skipped_fraction": 0.1}
    cache = make(data, tmp_path, reading=reading)
    for record, kind in ((3, "damaged"), (43, "damaged"), (4, "missing"), (44, "missing")):
        with pytest.raises(UnusableRecordError, match=f"record key {record % 40} of shard 0") as e:
            cache.read(record)
        assert e.value.kind == kind
    assert cache.read(5).shape == (16, 24, 3)
    assert cache.store.facts.total["unusable"] == 4
    listed = (cache.store.folder / "unusable.jsonl").read_text().splitlines()
    assert len(listed) == 4
    assert '"kind": "damaged"' in listed[0]
    kept = files(tmp_path)
    make(data, tmp_path, "refuse", reading)
    assert files(tmp_path) == kept


def test_repaired_images_have_latents_and_are_listed(tmp_path, capsys):
    square = NOISE[:16, :16]
    data = opened({4: broken_off(square)}, counts=(40,))
    skipping = make(data, tmp_path, reading={"skipped_fraction": 0.1})
    cache = make(data, tmp_path, reading={"damaged": "repair"})
    assert cache.store.folder != skipping.store.folder
    np.testing.assert_array_equal(cache.read(4)[:4], in_training(square)[:4])
    assert cache.store.facts.total["unusable"] == 0
    assert cache.store.facts.total["repaired"] == 1
    (row,) = map(json.loads, (cache.store.folder / "unusable.jsonl").read_text().splitlines())
    assert (row["record"], row["kind"], row["key"]) == (4, "repaired", "key 4")
    shown = capsys.readouterr().out
    assert "reading.damaged None, not 'repair'" in shown
    assert "latents: 1 images are damaged and were repaired, see " in shown


def test_records_that_may_not_be_skipped_end_the_work(tmp_path):
    gone = opened({4: FileNotFoundError(2, "No such file or directory")})
    with pytest.raises(
        LiditError, match=r"record key 4 .*config\.data\.reading\.missing to 'skip'"
    ):
        make(gone, tmp_path)
    with pytest.raises(LiditError, match=r"1 of 63 records .* more than .*skipped_fraction=0\.01"):
        make(opened({4: b"text"}), tmp_path, reading={"missing": "skip"})


def test_another_autoencoder_or_index_is_another_cache_and_the_difference_is_told(tmp_path, capsys):
    make(opened(), tmp_path)
    capsys.readouterr()
    reading = ReadingSettings()
    other = FrozenAutoencoder(None, {}, "sharper")
    with pytest.raises(LiditError, match="are others: autoencoder 'pixels', not 'sharper'"):
        latent_cache(opened(), other, tmp_path, reading, "refuse")
    with pytest.raises(LiditError, match=r"are others: the data \(records, filters, captions or"):
        make(opened(identity="second"), tmp_path, "refuse")
    latent_cache(opened(), other, tmp_path, reading)
    make(opened(identity="second"), tmp_path)
    assert "autoencoder 'pixels', not 'sharper'" in capsys.readouterr().out
    assert len([*tmp_path.iterdir()]) == 3
