"""Batches of pictures and captions: what they hold, and what stands in for what cannot be read."""

import io
import itertools
import json
import os

import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from lidit_jax.config.data_settings import (
    AugmentationSettings,
    CaptionSettings,
    FilterSettings,
    ReadingSettings,
)
from lidit_jax.data.batches import BatchReader, batches
from lidit_jax.data.bucket_members import BucketMembers
from lidit_jax.data.order import Order
from lidit_jax.data.record_reading import UnusableRecordError
from lidit_jax.data.skipped_records import SkippedRecords
from lidit_jax.data.streamed_source import StreamedSource
from lidit_jax.errors import LiditError
from tests.data.reader_memory import memory
from tests.data.stand_ins import NOISE, Columns, Painted, broken_off, picture

SHAPES = ((24, 16), (16, 16), (16, 24))
COUNT = 90


def streamed(images=None, captions=None, count=COUNT, **settings):
    """Tall, square and wide pictures in turn."""
    index = Columns(count)
    index.height[0::3], index.width[2::3] = 96, 96
    return StreamedSource(
        index,
        Painted(index, images, captions),
        settings.get("columns", CaptionSettings()),
        FilterSettings(),
    )


def reader(*sources, size=6, seed=0, share=(0, 1), reading=None, **augmentation):
    members = [BucketMembers(np.arange(len(s.index), dtype=np.uint8) % 3, 3) for s in sources]
    order = Order(members, size, seed)
    return BatchReader(
        sources,
        order,
        SHAPES,
        seed,
        ReadingSettings(**(reading or {})),
        AugmentationSettings(**augmentation),
        share,
    )


def same(one, other):
    for ours, theirs in zip(one, other, strict=True):
        if isinstance(ours, np.ndarray):
            np.testing.assert_array_equal(ours, theirs)
        else:
            assert ours == theirs


def test_a_batch_holds_pictures_in_its_shape_with_their_captions_and_numbers():
    ours = reader(streamed())
    seen = []
    for number in range(15):
        batch = ours.read(number)
        assert batch.number == number
        assert batch.image.shape == (6, *SHAPES[batch.bucket], 3)
        assert set(batch.records % 3) == {batch.bucket}
        # The pictures are PNGs of one color, so that every pixel is exact.
        assert (batch.image[:, :, :, 0] == batch.records[:, None, None]).all()
        assert batch.captions == [f"picture {record}" for record in batch.records]
        height, width = (96, 64) if batch.bucket == 0 else (64, 96 if batch.bucket else 64)
        if batch.bucket == 1:
            height = width = 64
        assert (batch.boxes == [0, 0, width, height]).all()
        assert not batch.flipped.any()
        assert batch.skipped == []
        seen += batch.records.tolist()
    assert sorted(seen) == list(range(COUNT))


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_read_the_parts_of_the_same_batches(processes):
    images = {10: b"text", 40: b"text"}
    whole = reader(streamed(images))
    parts = [reader(streamed(images), share=(p, processes)) for p in range(processes)]
    for number in range(16):
        expected = whole.read(number)
        found = [part.read(number) for part in parts]
        for name in ("image", "records", "boxes"):
            together = np.concatenate([getattr(batch, name) for batch in found])
            np.testing.assert_array_equal(together, getattr(expected, name))
        assert [text for batch in found for text in batch.captions] == expected.captions
        assert [row for batch in found for row in batch.skipped] == expected.skipped


def test_crops_and_flips_are_recorded():
    """A column of each picture has a color of its own."""
    ramp = np.zeros((64, 128, 3), np.uint8)
    ramp[:, :, 0] = np.arange(128)
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, "PNG")
    images = dict.fromkeys(range(COUNT), file.getvalue())
    ours = reader(streamed(images), random_crop=True, flip=0.5)
    squares = next(b for b in map(ours.read, range(9)) if b.bucket == 1)
    again = ours.read(squares.number)
    same(squares, again)
    assert len(set(squares.boxes[:, 0].tolist())) == 6
    for image, box, flipped in zip(squares.image, squares.boxes, squares.flipped, strict=True):
        left, top, right, bottom = box
        assert (top, bottom) == (0, 64)
        assert right - left == pytest.approx(64)
        row = image[8, ::-1, 0] if flipped else image[8, :, 0]
        # The middle of pixel 8 of 16 lies at 8.5 / 16 of the box; half a step of rounding, and
        # numbers of columns stand for their middles.
        assert abs(row[8] + 0.5 - (left + 8.5 / 16 * 64)) < 1.01
    later = next(b for b in map(ours.read, range(15, 40)) if set(b.records) & set(squares.records))
    both = set(later.records) & set(squares.records)
    record = both.pop()
    one, other = (b.boxes[b.records == record][0] for b in (squares, later))
    assert one[0] != other[0]


def test_captions_are_drawn_from_the_columns_that_a_record_has():
    both = CaptionSettings(columns=("caption", "long"), rates=(1.0, 3.0))
    captions = {i: {"caption": f"short {i}", "long": f"long {i}"} for i in range(0, COUNT, 2)}
    source = streamed(captions=captions, columns=both)
    chars = np.where(np.arange(COUNT) % 2, 0, 9).astype(np.uint32)
    source.index.caption_chars |= {"long": chars}
    ours = reader(source)
    words = []
    for number in range(150):
        batch = ours.read(number)
        for record, text in zip(batch.records.tolist(), batch.captions, strict=True):
            assert text == f"picture {record}" if record % 2 else str(record) in text
            words.append(text.split()[0])
    assert words.count("picture") == 450
    # Four standard deviations of a share of 450 draws.
    assert words.count("long") / 450 == pytest.approx(0.75, abs=0.082)


BAD = {
    "damaged": ({7: picture((1, 2, 3))[:60]}, {}, "is not a readable image"),
    "too_large": ({7: picture((1, 2, 3), 200, 100)}, {}, "has 0.02 megapixels, the limit is"),
    "missing": ({7: OSError(2, "No such file or directory")}, {}, "cannot be read (No such file"),
    "bad_caption": ({}, {7: {"caption": " \n"}}, "has nothing in its column 'caption'"),
}


@pytest.mark.parametrize("kind", BAD)
def test_each_kind_of_damage_ends_the_run_or_is_replaced(kind):
    images, captions, message = BAD[kind]
    limits = {"most_megapixels": 0.015}
    source = streamed(images, captions)
    failing = reader(source, reading={kind: "fail", **limits})
    skipping = reader(source, reading={kind: "skip", **limits})
    intact = reader(streamed())
    for number in range(15):
        expected = intact.read(number)
        if 7 not in expected.records:
            same(skipping.read(number), expected)
            continue
        with pytest.raises(LiditError, match=rf"set config\.data\.reading\.{kind} to 'skip'"):
            failing.read(number)
        found = skipping.read(number)
        (skipped,) = found.skipped
        assert skipped[:5] == (7, "painted:", "shard 0", "key 7", kind)
        assert message in skipped.message
        place = expected.records.tolist().index(7)
        substitute = found.records[place]
        assert substitute != 7
        assert substitute % 3 == 7 % 3
        assert (found.image[place, :, :, 0] == substitute).all()
        assert found.captions[place] == f"picture {substitute}"
        np.testing.assert_array_equal(
            np.delete(found.records, place), np.delete(expected.records, place)
        )


def test_a_damaged_picture_may_be_repaired_in_its_place():
    square = NOISE[:16, :16]
    images = {7: broken_off(square), 10: b"text"}
    ours = reader(streamed(images), reading={"damaged": "repair"})
    rows = {}
    for number in range(15):
        batch = ours.read(number)
        rows |= {row.record: row for row in batch.skipped}
        if 7 in batch.records:
            found = batch.image[batch.records.tolist().index(7)]
            np.testing.assert_array_equal(found[:4], square[:4])
            assert not found[-4:].any(), "the missing part is black"
    assert {record: row.kind for record, row in rows.items()} == {7: "repaired", 10: "damaged"}
    assert rows[7][:4] == (7, "painted:", "shard 0", "key 7")
    assert "was repaired (image file is truncated" in rows[7].message


def test_half_of_a_character_in_a_caption_is_a_bad_caption():
    found = reader(streamed(captions={7: {"caption": "a \ud83d"}}))
    skipped = [row for number in range(15) for row in found.read(number).skipped]
    assert [(row.record, row.kind) for row in skipped] == [(7, "bad_caption")]


def test_a_source_that_fails_otherwise_is_told_by_its_record():
    ours = reader(streamed({i: ValueError("two\nlines") for i in range(COUNT)}))
    with pytest.raises(LiditError, match=r"^record key \d+ of shard \d cannot be read \(ValueErr"):
        ours.read(0)


def test_a_set_of_nothing_but_damage_ends():
    ours = reader(streamed(dict.fromkeys(range(COUNT), b"text")))
    with pytest.raises(LiditError, match="50 records in a row cannot be read"):
        ours.read(0)


def test_caption_columns_are_checked_before_the_first_batch():
    with pytest.raises(LiditError, match="no 'text' among its captions"):
        reader(streamed(columns=CaptionSettings(columns=("text",))))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_read_ahead_from_any_position_and_skipped_ones_are_listed(workers, tmp_path):
    first, second = streamed({7: b"text", 20: b"text"}), streamed(count=30)
    ours = reader(first, second, reading={"skipped_fraction": 0.1})
    expected = [ours.read(number) for number in range(20)]
    for position in (0, 13):
        file = tmp_path / f"{position}.jsonl"
        skipped = SkippedRecords(file, 120, 0.1)
        found = batches(ours, position, skipped, workers)
        for batch, other in zip(found, expected[position:], strict=False):
            same(batch, other)
        found.close()
        wanted = {row.record for batch in expected[position:] for row in batch.skipped}
        rows = [json.loads(line) for line in file.read_text().splitlines()] if wanted else []
        assert wanted <= {row["record"] for row in rows}


def test_too_many_skipped_records_end_the_run(tmp_path):
    ours = reader(streamed(dict.fromkeys(range(40), b"text")))
    found = batches(ours, 0, SkippedRecords(tmp_path / "x.jsonl", COUNT, 0.1))
    with pytest.raises(LiditError, match="more than skipped_fraction"):
        list(itertools.islice(found, 20))
    assert (tmp_path / "x.jsonl").exists()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="asks Linux for memory")
class Latents:
    """Latents that hold their record's number; some are unusable."""

    def __init__(self, *unusable):
        self.unusable = unusable

    def read(self, record):
        if record in self.unusable:
            raise UnusableRecordError("damaged", f"record {record} was damaged")
        return np.full((2, 3, 4), record, np.float16)


class Features:
    """Features of two streams, by record and column; some are unusable."""

    def __init__(self, *unusable):
        self.unusable = unusable

    def read(self, record, column):
        if record in self.unusable:
            raise UnusableRecordError("bad_caption", f"record {record} has none")
        features = [np.full(shape, record, ml_dtypes.bfloat16) for shape in ((5, 2), (7, 3))]
        return (*features,), (np.arange(5) < 2, np.arange(7) < len(column))


def cached(source, **caches):
    ours = reader(source)
    sources, order, shapes, seed, reading, augmentation, share, *_ = ours._arguments
    return BatchReader(sources, order, shapes, seed, reading, augmentation, share, **caches)


def test_cached_values_are_read_instead_of_images_and_captions():
    plain, both = reader(streamed()), cached(streamed(), latents=Latents(), text=Features())
    half = cached(streamed(), latents=Latents())
    other = cached(streamed(), text=Features())
    for number in range(5):
        online, batch = plain.read(number), both.read(number)
        for name in ("records", "boxes", "flipped"):
            for found in (batch, half.read(number), other.read(number)):
                np.testing.assert_array_equal(getattr(found, name), getattr(online, name))
        assert (batch.image, batch.captions) == (None, None)
        assert (online.latent, online.features, online.masks) == (None, None, None)
        assert (batch.latent.shape, batch.latent.dtype) == ((6, 2, 3, 4), np.float16)
        np.testing.assert_array_equal(batch.latent[:, 0, 0, 0], online.records)
        assert [stream.shape for stream in batch.features] == [(6, 5, 2), (6, 7, 3)]
        assert {stream.dtype for stream in batch.features} == {np.dtype(ml_dtypes.bfloat16)}
        np.testing.assert_array_equal(batch.features[1][:, 0, 0], online.records)
        np.testing.assert_array_equal(batch.masks[1].sum(1), [len("caption")] * 6)
        assert half.read(number).captions == online.captions
        np.testing.assert_array_equal(other.read(number).image, online.image)


def test_a_source_whose_values_are_cached_is_not_touched():
    gone = streamed(dict.fromkeys(range(COUNT), OSError(2, "gone")))
    batch = cached(gone, latents=Latents(), text=Features()).read(0)
    assert batch.skipped == []


def test_substitutes_are_the_same_online_and_cached():
    """A damaged picture, and a record without a caption."""
    source = streamed({10: b"text"}, {40: {"caption": ""}})
    online = reader(source)
    caches = [
        cached(source, latents=Latents(10), text=Features(40)),
        cached(source, latents=Latents(10)),
        cached(source, text=Features(40)),
    ]
    replaced = 0
    for number in range(15):
        expected = online.read(number)
        replaced += len(expected.skipped)
        for found in (cache.read(number) for cache in caches):
            np.testing.assert_array_equal(found.records, expected.records)
            assert [(row.record, row.kind) for row in found.skipped] == [
                (row.record, row.kind) for row in expected.skipped
            ]
    assert replaced == 2


def test_an_unusable_cached_record_may_end_the_run():
    source = streamed()
    order = reader(source)._order
    first = int(order.batch(0).records[0])
    settings = ReadingSettings(damaged="fail")
    refusing = BatchReader(
        [source], order, SHAPES, 0, settings, AugmentationSettings(), latents=Latents(first)
    )
    with pytest.raises(LiditError, match=r"was damaged \(to go on .* config\.data\.reading\.damag"):
        refusing.read(0)


def test_cached_latents_are_not_augmented():
    source = streamed()
    order = reader(source)._order
    flips = AugmentationSettings(flip=0.5)
    with pytest.raises(LiditError, match=r"^config\.data\.augmentation: cached latents hold each"):
        BatchReader([source], order, SHAPES, 0, ReadingSettings(), flips, latents=Latents())


@pytest.mark.parametrize("workers", [0, 1])
def test_cached_batches_are_read_ahead(workers, tmp_path):
    ours = cached(streamed(), latents=Latents(), text=Features())
    skipped = SkippedRecords(tmp_path / "skipped", COUNT, 0.1)
    found = list(itertools.islice(batches(ours, 3, skipped, workers), 3))
    for number, batch in enumerate(found, 3):
        expected = ours.read(number)
        same(batch[:2], expected[:2])
        np.testing.assert_array_equal(batch.latent, expected.latent)
        for name in ("features", "masks"):
            same(getattr(batch, name), getattr(expected, name))


def test_memory_stays_flat(tmp_path):
    """`python -m tests.data.reader_memory` goes on for 20,000 batches.

    300 batches of 49 KB are 15 MB, were they kept; allocators may hold a fifth in reserve.
    """
    parts = memory(600, tmp_path, moments=2)
    assert parts[1] - parts[0] < 3
