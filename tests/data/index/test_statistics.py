"""Counts over an index, and samples of it."""

import numpy as np
import pytest

from lidit_jax.data.index.build import build_index
from lidit_jax.data.index.statistics import Lengths, statistics, usable_sample
from tests.data.index.tiny_source import Tiny, picture, record, tiny


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def test_records_are_counted_by_shape_size_and_caption(folder):
    pictures = [(100, 100), (104, 100), (160, 90), (64, 64), (63, 200), (1000, 1500)]
    records = [record(i, picture(*size), "a" * (i + 1)) for i, size in enumerate(pictures)]
    records += [record(8, picture(8, 8), None), record(9, b"text", "not counted")]
    found = statistics(build_index(Tiny({"s": records}), folder))
    assert (found["records"], found["usable"]) == (8, 7)
    assert {name: n for name, n in found["aspects"].items() if n} == {
        "1:1": 4,
        "16:9": 1,
        "1:2": 1,
        "2:3": 1,
    }
    sizes = {"below 64": 2, "64-127": 4, "512-767": 0, "768-1023": 1, "1024-2047": 0}
    assert {name: found["sizes"][name] for name in sizes} == sizes
    assert sum(found["sizes"].values()) == 7
    assert found["problems"]["image"] == 1
    assert found["characters"]["caption"] == {
        "captions": 6,
        "mean": 3.5,
        "median": 3,
        "most": 6,
        "longest": 6,
    }


def test_lengths_are_those_of_numpy():
    values = np.random.default_rng(0).integers(1, 300, 1000)
    found = Lengths.of(np.bincount(values, minlength=400))
    inverted = {"method": "inverted_cdf"}
    assert found.median == np.quantile(values, 0.5, **inverted)
    assert found.most == np.quantile(values, 0.95, **inverted)
    assert found.longest == values.max()
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)  # sums of whole numbers are exact
    assert Lengths.of(np.array([5])) == Lengths(0, 0.0, 0, 0, 0)


def test_a_sample_follows_its_seed_and_holds_no_record_that_cannot_be_used(folder):
    source = tiny(5, 10)
    source.records["shard-2"][3] = record(23, b"text", offset=3)
    index = build_index(source, folder)
    sample = usable_sample(index, 8, seed=1)
    assert sample == usable_sample(index, 8, seed=1) == sorted(set(sample))
    assert sample != usable_sample(index, 8, seed=2)
    assert usable_sample(index, 1000, seed=1) == [i for i in range(50) if i != 23]
