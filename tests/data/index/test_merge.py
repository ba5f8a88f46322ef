"""Parts become columns; opening them takes time and memory that do not follow the records."""

import numpy as np
import pytest

from lidit_jax.data.index.merge import fingerprint, merge_parts
from lidit_jax.data.index.open import open_index
from lidit_jax.errors import LiditError
from lidit_jax.io.progress import Progress
from tests.data.index.synthetic import make, measure, part


def test_columns_are_the_parts_one_after_the_other(tmp_path):
    make(tmp_path, 1000, shard=300)
    index = open_index(tmp_path)
    random = np.random.default_rng(0)
    parts = [part(first, min(300, 1000 - first), random) for first in range(0, 1000, 300)]
    for name in ("width", "offset", "content", "problem"):
        whole = np.concatenate([each.columns[name] for each in parts])
        np.testing.assert_array_equal(getattr(index, name), whole)
    np.testing.assert_array_equal(index.numbers["score"], np.hstack([p.numbers[0] for p in parts]))
    assert index.key(0) == "0" * 18
    assert index.key(999) == "999".zfill(18)
    assert np.bincount(index.shard).tolist() == [300, 300, 300, 100]
    assert sum(index.counts.values()) == len([*index.problems()]) == index.problem[:].sum()


def test_what_differs_between_parts_is_filled(tmp_path):
    random = np.random.default_rng(0)
    first, second = part(0, 2, random), part(2, 1, random)
    second.caption_names[0] = "short"
    second.number_names[0] = "likes"
    for number, each in enumerate((first, second)):
        with (tmp_path / str(number)).open("wb") as file:
            each.save(file)
    files = [tmp_path / "0", tmp_path / "1"]
    merge_parts(files, ["a", "b"], "tiny:memory", tmp_path, "columns-x", Progress())
    index = open_index(tmp_path)
    assert index.caption_chars["caption"][2] == index.caption_chars["short"][0] == 0
    assert index.caption_chars["short"][2] == second.caption_chars[0, 0]
    assert np.isnan(index.numbers["likes"]).tolist() == [True, True, False]


def test_a_merge_that_was_killed_is_made_anew(tmp_path):
    half = tmp_path / ".columns-synthetic"
    half.mkdir()
    (half / "width.npy").write_bytes(b"half")
    make(tmp_path, 10)
    assert len(open_index(tmp_path)) == 10
    assert not half.exists()


def test_without_a_record_there_is_no_index(tmp_path):
    random = np.random.default_rng(0)
    with (tmp_path / "0").open("wb") as file:
        part(0, 0, random).save(file)
    with pytest.raises(LiditError, match="not a single record was found"):
        merge_parts([tmp_path / "0"], ["a"], "x:y", tmp_path, "columns-x", Progress())


def test_the_fingerprint_knows_no_order():
    name, content = np.random.default_rng(0).integers(0, 2**63, (2, 100)).astype(np.uint64)
    order = np.random.default_rng(1).permutation(100)
    assert fingerprint(name[order], content[order]) == fingerprint(name, content)
    assert fingerprint(name, content[order]) != fingerprint(name, content)


def test_opening_hardly_depends_on_the_number_of_records(tmp_path):
    """200 times the records: 47 MB of columns, of which opening touches a few pages each."""
    sizes = {}
    for records in (2_000, 400_000):
        folder = tmp_path / str(records)
        folder.mkdir()
        make(folder, records)
        sizes[records] = measure(folder)
    assert sizes[400_000]["records"] == 400_000
    grown = sizes[400_000]["open_bytes"] - sizes[400_000]["import_bytes"]
    assert grown < 8e6, "20 bytes a record would be a copy of three columns"
