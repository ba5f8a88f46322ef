"""Scenes as records: the same pictures and captions, and an index that takes no memory."""

import io
import pickle
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from lidit_jax.config.data_settings import ReadingSettings
from lidit_jax.data.index.build import build_index
from lidit_jax.data.record_reading import read_captions, read_record
from lidit_jax.data.scenes.records import SceneIndex, SceneRecords, open_scene_records
from lidit_jax.data.scenes.source import SceneSource, open_scenes
from lidit_jax.data.sources.protocol import CaptionSource, RecordSource
from lidit_jax.data.streamed_source import RecordIndex
from lidit_jax.errors import LiditError

SETTINGS = (
    "data.distinct_captions=7",
    "data.textured_fraction=0.5",
    "data.caption_style=varied",
    "data.language=both",
)


@pytest.fixture
def opened(tiny_config):
    """Configuration, index and records."""
    config = tiny_config(*SETTINGS)
    return config, *open_scene_records(config)


def test_they_are_of_the_interfaces_of_other_sources(opened):
    _, index, records = opened
    assert isinstance(index, RecordIndex)
    assert isinstance(records, RecordSource)
    assert isinstance(records, CaptionSource)


def test_pictures_equal_those_of_the_scenes_pixel_by_pixel(opened):
    config, index, records = opened
    train, held_out = open_scenes(config, "train"), open_scenes(config, "heldout")
    assert len(index) == len(train) + len(held_out) == 64 + 24
    for number in (0, 5, 63, 64, 87):
        scene = train[number] if number < 64 else held_out[number - 64]
        place = index.place(number)
        record = pickle.loads(pickle.dumps(records)).read(place)
        image = np.asarray(Image.open(io.BytesIO(record.image)))
        np.testing.assert_array_equal(image, scene["image"])
        assert record.captions == {"caption": scene["caption"]}
        fitted = read_record(records, place).fitted((32, 32), ReadingSettings()).image
        np.testing.assert_array_equal(fitted, scene["image"])


def test_captions_are_read_without_a_picture(opened, monkeypatch):
    _, index, records = opened
    whole = read_record(records, index.place(70))
    monkeypatch.setattr(SceneSource, "scene", None)
    record = read_captions(records, index.place(70))
    assert record.content.image == b""
    assert record.caption("caption") == whole.caption("caption")
    with pytest.raises(LiditError, match="record train/3 of train cannot be read"):
        read_record(records, index.place(3))


def test_an_index_can_be_made_of_them(opened, tmp_path):
    _, index, records = opened
    made = build_index(records, tmp_path)
    order = sorted(range(len(index)), key=lambda record: index.place(record).shard)
    assert [made.key(i) for i in range(len(made))] == [index.place(i).key for i in order]
    assert not made.problem.any()
    for name in ("width", "height"):
        np.testing.assert_array_equal(getattr(made, name), getattr(index, name))
    assert len(np.unique(made.content)) > 80
    assert len(np.unique(index.content)) == 88


def test_its_columns_take_no_memory(opened):
    config, _, _ = opened
    many = SceneSource(records=8_000_000, size=config.data.image_size)
    tracemalloc.start()
    index = SceneIndex(many, many)
    columns = [index.width, index.height, index.problem, index.caption_chars["caption"]]
    columns.append(index.caption_flags["caption"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {len(column) for column in columns} == {16_000_000}
    assert peak < 2**20


def test_flags_are_those_of_the_language(tiny_config):
    for language, bits in (("en", 16), ("zh", 32), ("both", 48)):
        index, _ = open_scene_records(tiny_config(f"data.language={language}"))
        assert index.caption_flags["caption"][0] == bits


def test_the_size_of_scenes_must_fit(tiny_config):
    with pytest.raises(LiditError, match="image size 36: must be a positive multiple of 8"):
        open_scene_records(tiny_config("data.image_size=36", "model.patch=4"))


def test_both_splits_are_shards():
    scenes = SceneSource(records=3), SceneSource("heldout", 2)
    shards = SceneRecords(*scenes).shards()
    assert [shard.name for shard in shards] == ["heldout", "train"]
    assert shards[1].version != SceneRecords(SceneSource(records=4), scenes[1]).shards()[1].version
