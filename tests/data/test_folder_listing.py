"""Which files of a folder are pictures: all that are decoded, no litter, the rest is counted."""

import os

import pytest

from lidit_jax.data.folder_listing import list_folder, summary
from lidit_jax.io.files import Files


@pytest.fixture
def folder(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def listed(folder):
    return list_folder(Files(str(folder)))


def names(folder):
    """Pictures and text files as they are listed."""
    return [(name, text and text.rpartition("/")[2]) for name, text in listed(folder).captioned]


def test_every_picture_has_its_text_file_or_none(folder):
    root = folder("b.png", "a.jpg", "a.txt", "more/a.webp", "more/a.txt")
    assert names(root) == [("a.jpg", "a.txt"), ("b.png", None), ("more/a.webp", "a.txt")]


@pytest.mark.parametrize("suffix", ["avif", "bmp", "tif", "TIFF", "gif", "jp2", "JPG", "Jfif"])
def test_pictures_of_every_kind(suffix, folder):
    root = folder(f"a.{suffix}", "a.txt")
    assert names(root) == [(f"a.{suffix}", "a.txt")]
    assert listed(root).left_out == []


def test_upper_and_lower_case_do_not_count_in_names_of_text_files(folder):
    assert names(folder("IMG_1.JPG", "IMG_1.TXT")) == [("IMG_1.JPG", "IMG_1.TXT")]
    assert names(folder("IMG_1.txt")) == [("IMG_1.JPG", "IMG_1.txt")]


def test_pictures_that_differ_in_case_keep_their_own_captions(folder):
    root = folder("A.png", "a.png", "a.txt", "A.txt")
    if len(os.listdir(root)) < 4:
        pytest.skip("the disk does not tell upper from lower case")
    assert names(root) == [("A.png", "A.txt"), ("a.png", "a.txt")]


def test_litter_is_no_part_of_the_folder(folder):
    litter = ["._a.jpg", "._a.txt", ".DS_Store", "Thumbs.db", "desktop.ini"]
    litter += [".ipynb_checkpoints/a-checkpoint.jpg", "__MACOSX/a.jpg", "more/.hidden.png"]
    root = folder("a.jpg", "a.txt", *litter)
    assert names(root) == [("a.jpg", "a.txt")]
    assert listed(root).left_out == []


def test_what_is_left_out_is_counted_by_its_kind(folder):
    root = folder("a.png", "a.txt", "b.HEIC", "b.txt", "c.heic", "more/d.psd", "README")
    assert summary(listed(root).left_out) == (
        "2 .heic (b.HEIC, c.heic), 1 .psd (more/d.psd), 1 .txt (b.txt), 1 without a suffix (README)"
    )
    assert summary(f"{i}.heic" for i in range(5)) == "5 .heic (0.heic, 1.heic, 2.heic, …)"


def test_linked_folders_are_followed_once_each(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "b.png").touch()
    root = folder("z/a.png")
    (root / "linked").symlink_to(elsewhere)
    (root / "again").symlink_to(root / "z")
    (root / "z" / "circle").symlink_to(root)
    (elsewhere / "back").symlink_to(root)
    assert names(root) == [("linked/b.png", None), ("z/a.png", None)]


def test_a_link_to_nothing_is_a_picture_by_its_name(folder):
    root = folder("a.png")
    (root / "b.png").symlink_to(root / "gone.png")
    (root / "notes.md").symlink_to(root / "gone.md")
    assert names(root) == [("a.png", None), ("b.png", None)]
    assert listed(root).left_out == ["notes.md"]
