"""A folder for each class, as ImageNet has them."""

import pytest

from lidit_jax.data.record_reading import read_captions
from lidit_jax.data.sources.class_folders import ClassFolders
from lidit_jax.data.sources.folder import Folder
from lidit_jax.data.sources.protocol import Place, Record
from lidit_jax.errors import LiditError


@pytest.fixture
def folder(tmp_path, picture):
    folder = tmp_path / "classes"
    for name in ("tabby_cat/1.jpg", "tabby_cat/more/2.JPEG", "n01440764/x.JPEG", "猫 b/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(kind="PNG" if name.endswith("png") else "JPEG"))
    (folder / "loose.png").touch()
    (folder / "tabby_cat" / "notes.md").touch()
    return folder


def test_a_caption_is_read_without_its_picture(folder):
    place = Place("", "tabby_cat/1.jpg", 0, 0)
    (folder / place.key).unlink()
    expected = {"caption": "a photo of tabby cat"}
    assert read_captions(ClassFolders(str(folder)), place).content == Record(b"", expected)


def test_a_class_is_what_its_folder_is_called(folder, same_when_read):
    source = ClassFolders(str(folder))
    rows = {
        key: (captions.get("caption"), problem)
        for _, key, captions, _, problem in same_when_read(source)
    }
    assert list(rows) == [
        "n01440764/x.JPEG",
        "tabby_cat/1.jpg",
        "tabby_cat/more/2.JPEG",
        "猫 b/1.png",
    ]
    assert (
        rows["tabby_cat/1.jpg"]
        == rows["tabby_cat/more/2.JPEG"]
        == (
            "a photo of tabby cat",
            "",
        )
    )
    assert rows["猫 b/1.png"] == ("a photo of 猫 b", "")
    assert (
        "n01440764 is named by a number of WordNet: add classes.txt" in rows["n01440764/x.JPEG"][1]
    )
    assert source.left_out() == "1 .md (tabby_cat/notes.md), 1 .png (loose.png)"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("LOC_synset_mapping.txt", "n01440764 tench, Tinca tinca\nn09999999 not here\n"),
        ("classes.txt", "\ufeffn01440764\ttench\r\n\r\ntabby_cat cat\r\n"),
    ],
)
def test_a_table_names_classes(folder, name, content, same_when_read):
    before = ClassFolders(str(folder)).shards()
    (folder / name).write_text(content, newline="")
    source = ClassFolders(str(folder))
    captions = {key: captions["caption"] for _, key, captions, _, _ in same_when_read(source)}
    assert captions["n01440764/x.JPEG"] == "a photo of tench"
    cat = "cat" if name == "classes.txt" else "tabby cat"
    assert captions["tabby_cat/1.jpg"] == f"a photo of {cat}"
    after = source.shards()
    assert [s.name for s in after] == [s.name for s in before]
    assert after != before, "captions have changed"


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_shards_and_keys_are_the_same_in_a_bucket(folder, scheme, copy, same_when_read):
    (folder / "classes.txt").write_text("n01440764 tench")
    here, there = ClassFolders(str(folder)), ClassFolders(copy(folder, scheme))
    assert same_when_read(here) == same_when_read(there)
    assert here.left_out() == there.left_out()


def test_what_is_no_folder_of_classes(folder, tmp_path, picture):
    (folder / "classes.txt").write_bytes(b"n01440764\n")
    source = ClassFolders(str(folder))
    (shard,) = source.shards()
    assert all("classes.txt, line 1: write the folder" in r.problem for r in source.scan(shard))
    (folder / "classes.txt").write_bytes(b"n01440764 \xe9\n")
    source = ClassFolders(str(folder))
    assert all("classes.txt is not UTF-8" in r.problem for r in source.scan(shard))
    with pytest.raises(LiditError, match=r"holds no CLASS/IMAGE\.jpg"):
        ClassFolders(str(folder / "tabby_cat" / "more")).shards()
    splits = tmp_path / "imagenet"
    for name in ("train/cat/1.png", "val/cat/2.png"):
        (splits / name).parent.mkdir(parents=True)
        (splits / name).write_bytes(picture())
    with pytest.raises(LiditError, match=r"holds splits, no classes: .* classes:.*/train$"):
        ClassFolders(str(splits)).shards()
    assert Folder(str(splits)).shards()
