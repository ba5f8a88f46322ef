"""Data of a run: who trains, who is held out, in which shape, and what is told about it."""

import collections
import pickle

import numpy as np
import pytest
from PIL import Image

from lidit_jax.data import opened_data
from lidit_jax.data.batches import BatchReader
from lidit_jax.data.index.open import open_index
from lidit_jax.data.opened_data import open_data
from lidit_jax.errors import LiditError
from lidit_jax.io.paths import to_path

SIZES = ((48, 96), (64, 64), (96, 48))
"""Height and width of the pictures, in turn."""


def fill(folder, count, text="picture", first=0):
    """Pictures of three shapes, named by their captions."""
    folder.mkdir(exist_ok=True)
    for number in range(first, first + count):
        height, width = SIZES[number % 3]
        Image.new("RGB", (width, height), (number, 7, 0)).save(folder / f"{number:03d}.png")
        (folder / f"{number:03d}.txt").write_text(f"{text} {number}")
    return folder


@pytest.fixture
def opened(tiny_config, tmp_path):
    """`opened(*overrides)`: 60 pictures in a folder, eight per batch."""
    fill(tmp_path / "photos", 60)

    def open_folder(*overrides):
        config = tiny_config(
            "data.source=folder",
            f"data.path={tmp_path / 'photos'}",
            f"data.cache_dir={tmp_path / 'cache'}",
            "training.batch_size=8",
            "data.validation_records=3",
            "data.buckets.shapes=3",
            *overrides,
        )
        return open_data(config, 2)

    return open_folder


def passes_of(data, batches, processes=1):
    """Pass and source of every use of a record."""
    found = collections.Counter()
    for number in range(batches):
        for process in range(processes):
            batch = data.order.batch(number, process, processes)
            found.update(zip(batch.records.tolist(), batch.passes.tolist(), strict=True))
    return found


def trained_on(data):
    """Records of all first passes, of which none may be repeated."""
    batches = 0
    while data.order.counts(batches)[0].sum() < 3 * len(data):
        batches += 1
    uses = passes_of(data, batches)
    assert max(uses.values()) == 1
    return {record for record, number in uses if number == 0}


def keys(data, records):
    found = set()
    for record in records:
        source, own = data.order.source(record)
        found.add((source, data.sources[source].index.place(own).key))
    return found


def test_held_out_records_do_not_train(opened):
    data = opened()
    train, held_out = trained_on(data), {*data.held_out.records.tolist()}
    assert len(data) == data.contents.records == len(train) == 57
    assert len(held_out) == 3
    assert not train & held_out
    assert train | held_out == {*range(60)}
    assert [members.counts.sum() for members in data.used] == [60]


def test_at_most_one_in_twenty_is_held_out(opened):
    assert len(opened("data.validation_records=1").held_out) == 1
    assert len(opened("data.validation_records=1000").held_out) == 3


def test_keys_decide_which_records_are_held_out(opened, tmp_path):
    before = opened("data.validation_records=2")
    fill(tmp_path / "photos", 3, first=200)
    after = opened("data.validation_records=2")
    held_out = keys(after, after.held_out.records.tolist())
    assert held_out == keys(before, before.held_out.records.tolist())
    assert len(after) == len(before) + 3


@pytest.mark.parametrize("count", [1, 5, 19])
def test_of_fewer_than_twenty_records_one_is_in_both(tiny_config, tmp_path, count):
    path = fill(tmp_path / "few", count)
    data = open_data(tiny_config("data.source=folder", f"data.path={path}"), 8)
    assert (len(data), len(data.held_out.records)) == (count, 1)
    assert trained_on(data) == {*range(count)}


def test_filtered_records_neither_train_nor_validate(opened):
    data = opened("data.filters.min_width=64")
    used = trained_on(data) | {*data.held_out.records.tolist()}
    assert used == {record for record in range(60) if record % 3 != 2}
    assert "40 of 60 records are used; removed: 20 by min_width=64" in data.report[0]
    with pytest.raises(LiditError, match=r"photos: the filters leave none of 60 .*lidit data insp"):
        opened("data.filters.min_width=640")


def test_records_with_problems_are_counted_and_their_index_is_named(opened, tmp_path):
    (tmp_path / "photos" / "000.png").write_text("no picture")
    data = opened()
    assert "59 of 60 records are used; removed: 1 by problem" in data.report[0]
    place = data.report[1].removeprefix("the problems are told by lidit data inspect ")
    (problem,) = open_index(to_path(place)).problems()
    assert problem.key == "000.png"
    assert 0 not in trained_on(data)


def test_files_that_are_left_out_are_named(opened, tmp_path):
    (tmp_path / "photos" / "film.mp4").touch()
    assert "photos: left out: 1 .mp4 (film.mp4)" in opened().report[0]


def test_every_batch_has_one_shape_and_pictures_are_in_the_nearest(opened):
    data = opened("training.batch_size=4")
    assert len(data.shapes) == 3
    assert data.shapes[1] == (32, 32)
    assert data.shapes[0] == data.shapes[2][::-1]
    for number in range(20):
        batch = data.order.batch(number)
        # The pictures are wide, square and tall in turn, and the shapes from tall to wide.
        assert {2 - record % 3 for record in batch.records.tolist()} == {batch.bucket}
    buckets = [data.used[0].bucket(record) for record in data.held_out.records.tolist()]
    assert buckets == data.held_out.buckets.tolist()
    (told,) = [line for line in data.report if "records by width x height" in line]
    wide = "x".join(map(str, data.shapes[2][::-1]))
    count = 20 - data.held_out.buckets.tolist().count(2)
    assert f", {wide}: {count} (4.3% cropped)" in told


def test_shapes_with_too_few_records_are_merged(opened):
    data = opened("training.batch_size=32")
    counts = data.used[0].counts
    assert sorted(counts.tolist()) == [0, 0, 60]
    (told,) = [line for line in data.report if "fewer records than a batch of 32" in line]
    assert told.count(" records) into ") == 2
    squares = opened("data.buckets.shapes=1")
    assert squares.shapes == ((32, 32),)
    assert squares.identity != data.identity
    assert squares.caption_identity == data.caption_identity


@pytest.fixture
def mixture(opened, tmp_path):
    """`mixture(*overrides)`: with 90 more pictures, of which 30 are too narrow, and scenes."""
    more = fill(tmp_path / "more", 90, "another")

    def open_mixture(*overrides):
        return opened(
            f"data.mixture=('folder:{more}', 'scenes:')",
            "data.train_records=40",
            "data.filters.min_width=64",
            "data.validation_records=30",
            *overrides,
        )

    return open_mixture


def test_an_epoch_of_a_mixture_uses_every_record_once_on_any_number_of_processes(mixture):
    data = mixture()
    batches = 80
    alone = passes_of(data, batches)
    assert passes_of(data, batches, 2) == passes_of(data, batches, 4) == alone
    assert max(alone.values()) == 1, "no record is twice in a pass"
    first = {record for record, number in alone if number == 0}
    assert min(collections.Counter(record for record, _ in alone).values()) >= 2
    photos = {r for r in range(60) if r % 3 != 2} | {60 + r for r in range(90) if r % 3 != 2}
    scenes = {150 + r for r in range(40)}
    held_out = {*data.held_out.records.tolist()}
    assert not first & held_out
    assert first | held_out == photos | scenes | {r for r in held_out if r >= 190}
    assert len(first) == len(data)
    assert len(data.order) == 60 + 90 + 40 + 30


def test_all_sources_of_a_mixture_are_validated(mixture):
    data = mixture()
    sources = collections.Counter(data.order.source(r)[0] for r in data.held_out.records.tolist())
    assert sources == {0: 2, 1: 3, 2: round(30 * 40 / 140)}


def test_weights_are_the_rates_of_the_sources(mixture):
    data = mixture("data.weights=(1, 1, 2)")
    found = collections.Counter()
    for number in range(100):
        records = data.order.batch(number).records
        found.update(data.order.source(record)[0] for record in records.tolist())
    shares = [found[source] / 800 for source in range(3)]
    # The turns of sources and shapes are even, so only remainders of their cycles are off.
    np.testing.assert_allclose(shares, [0.25, 0.25, 0.5], atol=0.02)


def test_batches_of_a_mixture_are_read(mixture, tiny_config):
    data, config = mixture(), tiny_config()
    for order in (data.order, data.held_out):
        reader = BatchReader(
            data.sources, order, data.shapes, 0, config.data.reading, config.data.augmentation
        )
        batch = pickle.loads(pickle.dumps(reader)).read(0)
        assert batch.image.shape == (8, *data.shapes[batch.bucket], 3)
        for record, caption, image in zip(batch.records, batch.captions, batch.image, strict=True):
            source, own = data.order.source(int(record))
            if source < 2:
                assert caption == f"{('picture', 'another')[source]} {own}"
                assert image[0, 0, 0] == own


def test_damaged_held_out_pictures_are_replaced_by_others_of_their_shape(
    opened, tiny_config, tmp_path
):
    data, config = opened(), tiny_config()
    for record in data.held_out.records.tolist():
        (tmp_path / "photos" / f"{record:03d}.png").write_bytes(b"damaged")
    reader = BatchReader(
        data.sources, data.held_out, data.shapes, 0, config.data.reading, config.data.augmentation
    )
    for number in range(data.held_out.batches):
        batch = reader.read(number)
        found = {data.order.source(record)[1] % 3 for record in batch.records.tolist()}
        assert found == {2 - batch.bucket}
        assert not {*batch.records.tolist()} & {*data.held_out.records.tolist()}


def test_scenes_train_and_validate_on_their_own_splits(tiny_config):
    data = open_data(tiny_config(), 8)
    assert (len(data), len(data.held_out)) == (64, 24)
    assert trained_on(data) == {*range(64)}
    assert data.held_out.records.tolist() == [*range(64, 88)]
    assert data.report == ("64 records to train on, 24 for the validation loss",)
    with pytest.raises(
        LiditError, match=r"config\.data\.filters are for records of an index: scen"
    ):
        open_data(tiny_config("data.filters.min_width=8"), 8)


def test_caption_columns_of_several_sources(tiny_config, tmp_path):
    lines = '{{"file_name": "{}.png", "short": "a", "long": "a long one"}}\n'
    path = fill(tmp_path / "lines", 4)
    (path / "metadata.jsonl").write_text("".join(lines.format(f"{i:03d}") for i in range(4)))
    source = ("data.source=folder", f"data.path={path}", f"data.cache_dir={tmp_path / 'cache'}")

    def columns(*overrides):
        data = open_data(tiny_config(*source, *overrides), 8)
        return [(one.captions.columns, one.captions.rates) for one in data.sources]

    with pytest.raises(LiditError, match=r"lines: there are several caption columns: set config\."):
        columns()
    assert columns("data.captions.columns=('long',)") == [(("long",), (1.0,))]
    both = ("data.captions.columns=('short', 'caption')", "data.captions.rates=(1, 3)")
    mixed = columns(*both, "data.mixture=('scenes:',)")
    assert mixed == [(("short",), (1.0,)), (("caption",), (3.0,))]
    with pytest.raises(LiditError, match=r"there is no 'text', there are 'long', 'short'"):
        columns("data.captions.columns=('long', 'text')")
    with pytest.raises(LiditError, match=r"scenes: none of config.data.captions.columns=\('long',"):
        columns("data.captions.columns=('long',)", "data.mixture=('scenes:',)")


def test_the_identity_changes_with_what_is_cached(opened, tmp_path):
    data = opened()
    same = opened("data.validation_records=1", "seed=3", "data.reading.missing=skip")
    assert (same.identity, same.caption_identity) == (data.identity, data.caption_identity)
    other = opened("data.filters.max_width=64")
    assert other.identity != data.identity
    assert other.caption_identity != data.caption_identity
    larger = opened("data.image_size=64")
    assert larger.identity != data.identity
    assert larger.caption_identity == data.caption_identity
    (tmp_path / "photos" / "000.txt").write_text("new")
    assert opened().identity != data.identity


def test_contents_are_those_of_the_training_records(opened, tmp_path, monkeypatch):
    data = opened()
    assert data.contents.digests.shape == (57, 2)
    (tmp_path / "photos").rename(tmp_path / "moved")
    moved = opened(f"data.path={tmp_path / 'moved'}")
    assert moved.contents == data.contents
    assert opened(f"data.path={tmp_path / 'moved'}", "data.filters.min_width=64").contents != data
    monkeypatch.setattr(opened_data, "MOST_DIGESTS", 10)
    many = opened(f"data.path={tmp_path / 'moved'}").contents
    assert (many.records, many.digests) == (57, None)


def test_keys_of_two_sources_may_be_equal(opened, tmp_path):
    copy = fill(tmp_path / "copy", 60)
    contents = opened(f"data.mixture=('folder:{copy}',)").contents
    assert len(np.unique(contents.digests[:, 0])) == contents.records == 116
