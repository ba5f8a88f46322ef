"""Pictures are opened once, and not again at later starts."""

import os
from pathlib import Path

import pytest
from lidit_jax.data.picture_index import PictureIndex
from PIL import Image

from lidit_jax.errors import LiditError


@pytest.fixture
def opened(monkeypatch):
    """The names of pictures that are opened, whoever opens them."""
    names, original = [], Path.open

    def watched(path, *arguments, **options):
        if path.suffix == ".png":
            names.append(path.name)
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", watched)
    return names


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (8 + number, 8)).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def all_facts(pictures, prepared):
    index = PictureIndex(pictures[0].parent, prepared)
    facts = [index.facts(file) for file in pictures]
    index.keep(pictures)
    return facts


def test_a_later_start_opens_what_has_changed_and_nothing_else(pictures, tmp_path, opened):
    first = all_facts(pictures, tmp_path / "cache")
    assert opened == ["0.png", "1.png", "2.png"]
    assert [facts.header.width for facts in first] == [8, 9, 10]
    opened.clear()
    assert all_facts(pictures, tmp_path / "cache") == first
    assert opened == []
    Image.new("RGB", (20, 8)).save(pictures[1])
    os.utime(pictures[2], ns=(1, 1))
    assert all_facts(pictures, tmp_path / "cache")[1].header.width == 20
    assert opened == ["1.png", "2.png"]


def test_it_does_not_matter_how_the_folder_is_named(pictures, tmp_path, opened, monkeypatch):
    all_facts(pictures, tmp_path / "cache")
    opened.clear()
    monkeypatch.chdir(tmp_path)
    all_facts([file.relative_to(tmp_path) for file in pictures], tmp_path / "cache")
    assert opened == []


def test_without_a_place_to_keep_them_each_is_opened_once(pictures, opened):
    index = PictureIndex(pictures[0].parent)
    assert index.facts(pictures[0]) == index.facts(pictures[0])
    assert opened == ["0.png"]


def test_a_damaged_index_and_one_that_cannot_be_written_cost_time_only(pictures, tmp_path, opened):
    first = all_facts(pictures, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(b'{"0.png": [1]}')
    assert all_facts(pictures, tmp_path / "cache") == first
    (tmp_path / "file").touch()
    assert all_facts(pictures, tmp_path / "file" / "cache") == first


def test_a_file_that_is_no_picture_or_gone_is_named(pictures):
    index = PictureIndex(pictures[0].parent)
    pictures[0].write_bytes(b"text")
    pictures[1].unlink()
    for file in pictures[:2]:
        with pytest.raises(LiditError, match=rf"{file.name} is not a readable image: replace"):
            index.facts(file)
