"""Captions that are looked at before training: the first ones and the longest."""

import dataclasses

import numpy as np

from lidit_jax.config.data_settings import CaptionSettings, FilterSettings
from lidit_jax.data import caption_sample as module
from lidit_jax.data.caption_sample import caption_sample
from lidit_jax.data.streamed_source import SharedCaptions, StreamedSource
from tests.data.stand_ins import Columns, Painted

COUNT = 200


def source(captions, columns=("caption",), **filters):
    """Records whose captions are `column i`, with so many characters as the index says."""
    index = Columns(COUNT)
    index.caption_chars = captions
    texts = {i: {name: f" {name}  {i} " for name in captions} for i in range(COUNT)}
    records = Painted(index, captions=texts)
    return StreamedSource(
        index, records, CaptionSettings(columns=columns), FilterSettings(**filters)
    )


def test_the_first_and_the_longest_of_every_column_are_read_each_once(monkeypatch):
    monkeypatch.setattr(module, "_LONGEST", 3)
    monkeypatch.setattr(module, "_PIECE", 30)
    chars = np.full(COUNT, 5, np.uint32)
    chars[[7, 90, 150, 151]] = 20, 40, 30, 10
    ours = source({"long": chars, "short": np.full(COUNT, 9, np.uint32)}, ("long", "short"))
    found = caption_sample([ours], [np.array([0, 7])])
    long = ["long 0", "long 7", "long 90", "long 150"]
    assert found == [*long, "short 0", "short 1", "short 2", "short 7"]
    parts = [caption_sample([ours], [np.array([0, 7])], (part, 3)) for part in range(3)]
    assert sorted(text for part in parts for text in part) == sorted(found)


def test_only_captions_that_training_uses_are_read(monkeypatch):
    monkeypatch.setattr(module, "_LONGEST", 1)
    chars = np.arange(COUNT, dtype=np.uint32)
    ours = source({"caption": chars}, min_caption_chars=5)
    assert caption_sample([ours], [np.array([3, 8])]) == ["caption 8", f"caption {COUNT - 1}"]


def test_records_that_cannot_be_read_are_left_out(monkeypatch):
    monkeypatch.setattr(module, "_LONGEST", 1)
    ours = source({"caption": np.full(COUNT, 5, np.uint32)})
    ours.records.images[1] = FileNotFoundError("gone")
    found = caption_sample([ours, ours], [np.array([1, 2]), np.array([], np.int64)])
    assert found == ["caption 0", "caption 2", "caption 0"]


def test_captions_that_records_share_are_read_once(monkeypatch):
    monkeypatch.setattr(module, "_LONGEST", 1)
    ours = source({"caption": np.full(COUNT, 5, np.uint32)})
    ours = dataclasses.replace(ours, shared=SharedCaptions(records=100, distinct=4))
    found = caption_sample([ours], [np.array([1, 5, 99, 130])])
    assert found == ["caption 0", "caption 1", "caption 3", "caption 130"]
