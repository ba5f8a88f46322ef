"""Sources of a run: their names, their indexes, and what is refused."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from lidit_jax.data.index.build import build_index
from lidit_jax.data.index.open import open_index
from lidit_jax.data.source_opening import check_source, open_source, run_sources, split_source
from lidit_jax.data.sources.registry import FORMATS, open_records
from lidit_jax.errors import LiditError


@pytest.fixture
def folder(tmp_path):
    """Five captioned pictures."""
    place = tmp_path / "photos"
    place.mkdir()
    for number in range(5):
        Image.new("RGB", (8 + number, 8), (number, 0, 0)).save(place / f"{number}.png")
        (place / f"{number}.txt").write_text(f"picture {number}")
    return place


def config_of(tiny_config, tmp_path, *overrides):
    return tiny_config(f"data.cache_dir={tmp_path / 'cache'}", *overrides)


def test_a_mixture_follows_the_first_source(tiny_config):
    config = tiny_config("data.mixture=('index:a', 'emoji:', 'webdataset:gs://b/{0..9}.tar')")
    assert run_sources(config) == [
        "scenes:",
        "index:a",
        "emoji:",
        "webdataset:gs://b/{0..9}.tar",
    ]
    assert split_source("webdataset:gs://b/x") == ("webdataset", "gs://b/x")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.source=tape"], "config.data.source='tape': choose one of 'scenes', 'index', 'fold"),
        (["data.source=folder"], "config.data.path is empty: name what to read, such as my-imag"),
        (["data.source=index"], "config.data.path is empty: name what to read, such as photos-in"),
        (["data.mixture=('tape:x',)"], "config.data.mixture: 'tape:x' must be NAME:PATH, with a "),
        (["data.mixture=('photos',)"], "config.data.mixture: 'photos' must be NAME:PATH"),
        (["data.mixture=('folder:',)"], "config.data.mixture: 'folder:' names no path: write fol"),
        (["data.mixture=('scenes:',)"], "config.data.mixture names a source twice"),
        (
            ["data.source=folder", "data.path=x", "training.score_every=1"],
            "config.training.score_every=1: config.data.source='folder' has no truth",
        ),
    ],
)
def test_a_mistake_is_named(tiny_config, overrides, message):
    def named_sources():
        config = tiny_config(*overrides)
        check_source(config)
        return run_sources(config)

    with pytest.raises(LiditError) as refusal:
        named_sources()
    assert str(refusal.value).startswith(message)


def test_scenes_have_truth_also_in_a_mixture(tiny_config):
    overrides = ("data.source=folder", "data.path=x", "training.score_every=1")
    check_source(tiny_config(*overrides, "data.mixture=('scenes:',)"))


def test_files_are_scanned_once(tiny_config, folder, tmp_path, monkeypatch):
    config = config_of(tiny_config, tmp_path)
    source = f"folder:{folder}"
    opened = open_source(config, source)
    assert len(opened.index) == 5
    assert (opened.held_out_from, opened.shared.records) == (None, 0)
    np.testing.assert_array_equal(opened.names, opened.index.name)
    monkeypatch.setattr("lidit_jax.data.index.build.scan_shard", None)
    again = open_source(config, source)
    assert again.fingerprint == opened.fingerprint
    assert opened.records.read(opened.index.place(2)).captions == {"caption": "picture 2"}


def test_processes_that_start_together_share_the_scan(tiny_config, folder, tmp_path):
    config = config_of(tiny_config, tmp_path)
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: open_source(config, f"folder:{folder}"), range(4)))
    assert len({(len(one.index), one.fingerprint) for one in opened}) == 1


def test_an_index_is_a_source(tiny_config, folder, tmp_path):
    made = tmp_path / "index"
    made.mkdir()
    build_index(open_records(f"folder:{folder}"), made)
    config = config_of(tiny_config, tmp_path)
    opened = open_source(config, f"index:{made}")
    assert opened.fingerprint == open_source(config, f"folder:{folder}").fingerprint
    with pytest.raises(LiditError, match=r"is an index: write index instead of folder$"):
        open_source(config, f"folder:{made}")
    with pytest.raises(LiditError, match="holds no index: make it with lidit data index"):
        open_source(config, f"index:{folder}")


def test_the_fingerprint_changes_with_content_and_order_and_not_with_place(
    tiny_config, folder, tmp_path
):
    config = config_of(tiny_config, tmp_path)
    before = open_source(config, f"folder:{folder}").fingerprint
    moved = folder.rename(tmp_path / "moved")
    assert open_source(config, f"folder:{moved}").fingerprint == before
    (moved / "0.png").rename(moved / "x.png")
    (moved / "0.txt").rename(moved / "x.txt")
    renamed = open_source(config, f"folder:{moved}").fingerprint
    (moved / "x.txt").write_text("another")
    assert len({before, renamed, open_source(config, f"folder:{moved}").fingerprint}) == 3


@pytest.mark.parametrize("source", ["folder:photos", "folder:photos/", "photos"])
def test_an_index_of_a_relative_path_is_opened_from_any_folder(
    folder, tmp_path, monkeypatch, source
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "index").mkdir()
    index = build_index(open_records(source), tmp_path / "index")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    opened = open_index(tmp_path / "index")
    assert opened.source == f"folder:{folder}"
    record = open_records(opened.source).read(opened.place(1))
    assert record.captions == {"caption": "picture 1"}
    assert opened.source == index.source


def test_scenes_of_both_splits_are_one_source(tiny_config):
    config = tiny_config("data.distinct_captions=7")
    opened = open_source(config, "scenes:")
    assert (len(opened.index), opened.held_out_from) == (64 + 24, 64)
    assert opened.shared == (64, 7)
    assert opened.names is None
    other = open_source(dataclasses.replace(config, seed=5), "scenes:")
    assert other.fingerprint != opened.fingerprint


def test_every_format_is_a_source(tiny_config):
    for name in FORMATS:
        assert split_source(f"{name}:x") == (name, "x")


def test_planning_needs_no_path(tiny_config):
    check_source(tiny_config("data.source=webdataset"))
