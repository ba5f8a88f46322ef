"""Filters: which records they keep, how many each removed, and what they refuse."""

import dataclasses

import numpy as np
import pytest

from lidit_jax.config.data_settings import CaptionSettings, FilterSettings
from lidit_jax.data import filters
from lidit_jax.data.filters import CaptionUse, filter_records
from lidit_jax.errors import LiditError
from tests.data.stand_ins import Columns


def filtered(index, captions=None, **settings):
    return filter_records(index, FilterSettings(**settings), captions or CaptionSettings())


def kept(index, **settings):
    return np.flatnonzero(filtered(index, **settings).keep).tolist()


def test_without_settings_only_records_with_problems_and_without_captions_go():
    index = Columns(5)
    index.problem[1] = 2
    index.caption_chars["caption"][3] = 0
    keep, removed = filtered(index)
    assert keep.tolist() == [True, False, True, False, True]
    assert removed == {"problem": 1, "min_caption_chars=1": 1}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"min_width": 100}, [1, 2]),
        ({"max_width": 100}, [0, 1]),
        ({"min_height": 100}, [1]),
        ({"max_height": 99}, [0, 2]),
        ({"min_area": 10_000}, [1, 2]),
        ({"max_area": 10_000}, [0, 1]),
        ({"min_aspect": 1.0}, [1, 2]),
        ({"max_aspect": 1.0}, [0, 1]),
        ({"min_width": 60, "max_aspect": 0.9}, []),
    ],
)
def test_sizes(settings, expected):
    index = Columns(3)
    index.width[:], index.height[:] = [50, 100, 400], [90, 100, 50]
    if expected:
        result = filtered(index, **settings)
        assert np.flatnonzero(result.keep).tolist() == expected
        assert result.removed == {f"{k}={v}": 3 - len(expected) for k, v in settings.items()}
    else:
        with pytest.raises(LiditError, match=r"none of 3 records \(1 by min_width=60, 2 by max_a"):
            filtered(index, **settings)


def test_the_area_of_a_large_picture_does_not_wrap():
    index = Columns(2)
    index.width[:], index.height[:] = [2**17, 10], [2**16, 10]
    assert kept(index, min_area=1000) == [0]


def test_scores_of_which_missing_ones_fulfill_none():
    index = Columns(4)
    index.numbers["aesthetic"] = np.array([4.7, 4.6, np.nan, 9])
    index.numbers["water mark"] = np.array([0.1, 0.1, 0.1, 0.9])
    assert kept(index, scores=("aesthetic>=4.7",)) == [0, 3]
    assert kept(index, scores=("aesthetic < 4.7",)) == [1]
    result = filtered(index, scores=("aesthetic>4", "water mark<=5e-1"))
    assert result.removed == {"scores='aesthetic>4'": 1, "scores='water mark<=5e-1'": 1}
    with pytest.raises(
        LiditError, match=r"no 'beauty' among its numbers: there are 'aesthetic', '"
    ):
        filtered(index, scores=("beauty>1",))
    for wrong in ("aesthetic", "aesthetic>=high", ">3", "aesthetic==3"):
        with pytest.raises(LiditError, match="write a number of the index, a comparison and"):
            filtered(index, scores=(wrong,))


def test_a_record_stays_while_one_of_its_captions_may_be_read():
    index = Columns(4)
    index.caption_chars |= {"long": np.array([0, 50, 50, 3], np.uint32)}
    index.caption_flags |= {"long": np.array([1, 16, 16, 16], np.uint8)}
    index.caption_flags["caption"][:] = [16 | 2, 16 | 2, 32, 32 | 4]
    both = CaptionSettings(columns=("caption", "long"))
    settings = FilterSettings(
        min_caption_chars=10, captions_without=("url", "tags"), caption_scripts=("latin",)
    )
    use = CaptionUse(index, settings, both)
    assert use.usable(slice(0, 4)).tolist() == [[0, 0], [0, 1], [0, 1], [0, 0]]
    assert use.usable(np.array([2, 0])).tolist() == [[0, 1], [0, 0]]
    keep, removed = filter_records(index, settings, both)
    assert keep.tolist() == [False, True, True, False]
    assert removed == {"captions_without='url'": 1, "captions_without='tags'": 1}
    alone = dataclasses.replace(both, rates=(1.0, 0.0))
    with pytest.raises(LiditError, match="the filters leave none of 4 records"):
        filter_records(index, settings, alone)


def test_names_that_do_not_exist_are_refused_with_those_that_do():
    index = Columns(2)
    with pytest.raises(LiditError, match=r"no 'text' among its captions: there are 'caption'"):
        filtered(index, CaptionSettings(columns=("text",)))
    with pytest.raises(LiditError, match=r"captions_without='ads': choose of 'url', 'tags', 'few"):
        filtered(index, captions_without=("ads",))
    with pytest.raises(LiditError, match=r"caption_scripts='greek': choose of 'latin', 'han', 'o"):
        filtered(index, caption_scripts=("greek",))
    index.caption_flags = {}
    with pytest.raises(LiditError, match=r"no 'caption' among its kinds of captions: there are n"):
        filtered(index, captions_without=("url",))
    with pytest.raises(LiditError, match="no perceptual hashes: make it again"):
        filtered(index, duplicates="near")
    for rates in ((1.0, 2.0), (-1.0,), (0.0,)):
        with pytest.raises(LiditError, match="give each column a rate"):
            filtered(index, CaptionSettings(rates=rates))


def test_without_a_name_the_usual_caption_column_is_used_or_the_only_one():
    index = Columns(2)
    assert CaptionUse(index, FilterSettings(), CaptionSettings()).columns == ("caption",)
    index.caption_chars["text"] = np.array([9, 9], np.uint32)
    assert CaptionUse(index, FilterSettings(), CaptionSettings()).columns == ("caption",)
    index.caption_chars["long"] = index.caption_chars.pop("caption")
    with pytest.raises(LiditError, match=r"set config.data.captions.columns to some of 'long', 't"):
        filtered(index)
    del index.caption_chars["long"]
    assert CaptionUse(index, FilterSettings(), CaptionSettings()).columns == ("text",)
    index.caption_chars = {}
    with pytest.raises(LiditError, match="there are no captions: add some"):
        filtered(index)


def test_copies_go_among_those_that_are_left():
    index = Columns(5)
    index.content[:] = [7, 7, 7, 8, 8]
    index.width[:] = [64, 80, 70, 90, 64]
    index.problem[3] = 1
    assert kept(index, duplicates="exact") == [1, 4]
    assert kept(index, duplicates="exact", duplicate_kept="first") == [0, 4]
    index.perceptual_hash = np.array([0, 1, 3, 0, 2**63], np.uint64)
    assert kept(index, duplicates="near", duplicate_distance=0) == [0, 1, 2, 4]
    result = filtered(index, duplicates="near", duplicate_distance=1)
    assert np.flatnonzero(result.keep).tolist() == [1, 4]
    assert result.removed == {"problem": 1, "duplicates (near)": 2}


def test_pieces_are_judged_as_one(monkeypatch):
    index = Columns(1000)
    generator = np.random.default_rng(0)
    index.width[:] = generator.integers(1, 100, 1000)
    index.caption_chars["caption"][:] = generator.integers(0, 9, 1000)
    whole = filtered(index, min_width=30, min_caption_chars=4)
    monkeypatch.setattr(filters, "_PIECE", 64)
    pieces = filtered(index, min_width=30, min_caption_chars=4)
    np.testing.assert_array_equal(whole.keep, pieces.keep)
    assert whole.removed == pieces.removed
