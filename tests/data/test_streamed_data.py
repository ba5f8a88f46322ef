"""Batches of a run: what they hold, wherever it comes from, and what was left out of them."""

import itertools
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lidit_jax.config.data_settings import CaptionSettings, FilterSettings
from lidit_jax.data.bucket_members import BucketMembers
from lidit_jax.data.caption_tokenizer import CaptionTokenizer
from lidit_jax.data.contents import Contents
from lidit_jax.data.held_out import HeldOut
from lidit_jax.data.latent_statistics import LatentStatistics
from lidit_jax.data.order import Order
from lidit_jax.data.streamed_data import StreamedData
from lidit_jax.data.streamed_source import StreamedSource
from lidit_jax.data.training_data import TrainingData
from lidit_jax.encoders.conditions import PromptEncoders
from tests.data.stand_ins import Columns, Painted, broken_off

SHAPES = ((24, 16), (16, 16))
COUNT, HELD_OUT = 90, 10
STATISTICS = LatentStatistics(np.array([0.5, -0.25]), np.array([2.0, 4.0]))


def opened(images=None):
    """Tall and square pictures in turn, the last ones held out."""
    index = Columns(COUNT)
    index.height[0::2] = 96
    source = StreamedSource(index, Painted(index, images), CaptionSettings(), FilterSettings())
    buckets = np.arange(COUNT, dtype=np.uint8) % 2
    training = buckets.copy()
    training[-HELD_OUT:] = 255
    order = Order([BucketMembers(training, 2)], batch_size=16, seed=0)
    held_out = np.concatenate([np.arange(80, 90, 2), np.arange(81, 90, 2)])
    return SimpleNamespace(
        sources=(source,),
        shapes=SHAPES,
        used=(BucketMembers(buckets, 2),),
        order=order,
        held_out=HeldOut(order, held_out, np.repeat(np.arange(2, dtype=np.uint8), 5), 16),
        contents=Contents(COUNT - HELD_OUT, "fingerprint"),
    )


class Latents:
    """Stands in for a cache: latents are full of the record's number."""

    shapes = ((6, 4, 2), (4, 4, 2))

    def read(self, record):
        return np.full(self.shapes[record % 2], record, np.float16)


@pytest.fixture(scope="module")
def tokenizer(tiny_config):
    return CaptionTokenizer(PromptEncoders(tiny_config().encoders), [10, 10])


def same_as(example, arrays):
    assert jax.tree.structure(arrays) == jax.tree.structure(example)
    for array, shape in zip(jax.tree.leaves(arrays), jax.tree.leaves(example), strict=True):
        assert (array.shape, array.dtype) == (shape.shape, shape.dtype)


def test_a_batch_holds_pictures_and_tokens_of_the_records_of_its_number(
    tiny_config, tokenizer, tmp_path
):
    data = StreamedData(tiny_config(), opened(), text=tokenizer)
    assert isinstance(data, TrainingData)
    assert len(data) == 80
    assert data.streams == tokenizer.streams
    for number, batch in enumerate(itertools.islice(data.batches(3, tmp_path), 6), start=3):
        drawn = data.order.batch(number)
        assert batch.bucket == drawn.bucket
        np.testing.assert_array_equal(batch.records, drawn.records)
        np.testing.assert_array_equal(batch.arrays["index"], drawn.records)
        assert (batch.arrays["image"][..., 0] == drawn.records[:, None, None]).all()
        text = tokenizer([f"picture {record}" for record in drawn.records])
        for name, streams in text.items():
            jax.tree.map(np.testing.assert_array_equal, batch.arrays[name], streams)
        same_as(data.example(batch.bucket, 16), batch.arrays)
    assert data.counts == {}


def test_cached_latents_are_normalized(tiny_config, tmp_path):
    data = StreamedData(tiny_config(), opened(), latents=Latents(), statistics=STATISTICS)
    batch = next(data.batches(0, tmp_path))
    same_as(data.example(batch.bucket, 16), batch.arrays)
    assert batch.arrays["latent"].shape[1:] == Latents.shapes[batch.bucket]
    expected = (batch.records[:, None] - STATISTICS.mean) / STATISTICS.std
    # Numbers below 100, with two roundings to 24 bits.
    found = batch.arrays["latent"][:, 1, 2]
    np.testing.assert_allclose(found, expected, rtol=0, atol=100 * 2**-23)


@pytest.mark.parametrize(("times", "batch_size"), [(1, 4), (3, 4), (1, 16)])
def test_a_validation_has_each_held_out_row_once(times, batch_size, tiny_config, tmp_path):
    config = tiny_config()
    data = StreamedData(config, opened(), validation_times=times)
    assert data.validation_rows == HELD_OUT * times
    assert data.validation_buckets == (0, 1)
    indices, records = [], []
    for batch in data.validation(batch_size, (0, 1)):
        valid = batch.arrays.pop("valid")
        assert len(valid) == batch_size
        same_as(data.example(batch.bucket, batch_size), batch.arrays)
        assert (batch.arrays["image"][..., 0] == batch.records[:, None, None]).all()
        indices += batch.arrays["index"][valid].tolist()
        records += batch.records[valid].tolist()
    assert indices == list(range(HELD_OUT * times))
    assert sorted(records) == sorted(list(range(80, 90)) * times)
    trained = {r for b in itertools.islice(data.batches(0, tmp_path), 20) for r in b.records}
    assert trained == set(range(80)), "all others, and none of these"
    parts = [list(data.validation(batch_size, (p, 2))) for p in range(2)]
    both = [np.concatenate([a.records, b.records]) for a, b in zip(*parts, strict=True)]
    whole = [batch.records for batch in data.validation(batch_size, (0, 1))]
    for ours, theirs in zip(both, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_records_that_cannot_be_read_are_replaced_listed_and_counted(tiny_config, tmp_path):
    images = {10: b"text", 41: b"text"}
    config = tiny_config("data.reading.skipped_fraction=0.1")
    data = StreamedData(config, opened(images))
    seen = {r for batch in itertools.islice(data.batches(0, tmp_path), 10) for r in batch.records}
    assert not seen & images.keys()
    assert data.counts == {"skipped_records": 2}
    found = data.batches(0, tmp_path)
    next(found)
    found.close()
    lines = (tmp_path / "data" / "skipped_records_0.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["record"] for line in lines) == [10, 41]


def test_repaired_images_are_listed_and_counted(tiny_config, tmp_path, capsys):
    data = StreamedData(tiny_config("data.reading.damaged=repair"), opened({11: broken_off()}))
    seen = {r for batch in itertools.islice(data.batches(0, tmp_path), 10) for r in batch.records}
    assert 11 in seen
    assert data.counts == {"repaired_records": 1}
    (line,) = (tmp_path / "data" / "skipped_records_0.jsonl").read_text().splitlines()
    assert (json.loads(line)["record"], json.loads(line)["kind"]) == (11, "repaired")
    shown = capsys.readouterr().out
    assert "record key 11 of shard 1 is damaged, and was repaired (" in shown
    assert "all such records are listed in" in shown
    assert "stands in for it" not in shown


def test_captions_that_are_cut_are_counted_and_told_once(tiny_config, tmp_path, capsys):
    short = CaptionTokenizer(PromptEncoders(tiny_config().encoders), [0, 0])
    data = StreamedData(tiny_config(), opened(), text=short)
    for batch in itertools.islice(data.batches(0, tmp_path), 2):
        assert batch.arrays["masks"][0].all(axis=1).any()
    assert data.counts["cut_captions"] > 2
    shown = capsys.readouterr().out
    assert shown.count("are cut") == 1
    assert shown.count("padding of the captions' tokens in the first batch, by encoder: 0% of") == 1
