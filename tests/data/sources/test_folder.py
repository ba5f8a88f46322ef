"""A folder of pictures: both layouts, alike on a disk and in a bucket; hostile ones are named."""

import json
import os
import unicodedata
from itertools import chain

import pytest

from lidit_jax.data.record_reading import read_captions
from lidit_jax.data.sources import image_chunks
from lidit_jax.data.sources.folder import Folder
from lidit_jax.data.sources.protocol import Place, Record
from lidit_jax.errors import LiditError


@pytest.fixture
def beside(tmp_path, picture):
    """Pictures with text files beside them; names of all kinds."""
    folder = tmp_path / "beside"
    (folder / "more deep" / "ü").mkdir(parents=True)
    for name, text in {
        "b.png": "a red\n square",
        "a-1/x.png": None,
        "a.jpg": "\ufeffa cat\r\n",
        "more deep/c.d.webp": "dots",
        "more deep/ü/猫 😀.png": "一只猫",
        "IMG_1.JPG": "upper",
        "no.png": None,
        "empty.png": " \n",
    }.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        kind = {".jpg": "JPEG", ".webp": "WEBP"}.get(file.suffix.lower(), "PNG")
        file.write_bytes(picture(kind=kind))
        if text is not None:
            file.with_suffix(".TXT" if file.stem == "IMG_1" else ".txt").write_text(text)
    (folder / "latin.png").write_bytes(picture())
    (folder / "latin.txt").write_bytes("é".encode("latin-1"))
    (folder / "notes.md").write_text("notes")
    (folder / "lost.txt").write_text("of no picture")
    (folder / ".hidden.png").write_bytes(b"litter")
    (folder / "@eaDir").mkdir()
    (folder / "@eaDir" / "b.png").write_bytes(b"litter")
    return folder


def test_text_files_beside_pictures(beside, same_when_read):
    rows = {key: (captions, problem) for _, key, captions, _, problem in same_when_read(at(beside))}
    assert list(rows) == sorted(rows)
    assert rows["b.png"] == ({"caption": "a red\n square"}, "")
    assert rows["IMG_1.JPG"] == ({"caption": "upper"}, "")
    assert rows["more deep/ü/猫 😀.png"] == ({"caption": "一只猫"}, "")
    assert "a-1/x.png has no caption: write it to x.txt" in rows["a-1/x.png"][1]
    assert "empty.txt is empty: write the caption" in rows["empty.png"][1]
    assert "latin.txt is not UTF-8 text: save it as UTF-8" in rows["latin.png"][1]
    assert len(rows) == 9
    assert at(beside).left_out() == "1 .md (notes.md), 1 .txt (lost.txt)"


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_shards_and_keys_are_the_same_in_a_bucket(beside, scheme, copy, same_when_read):
    here, there = at(beside), Folder(copy(beside, scheme))
    bare = [row[:4] for row in same_when_read(here)]
    assert bare == [row[:4] for row in same_when_read(there)]
    assert [s.name for s in here.shards()] == [s.name for s in there.shards()]
    assert here.left_out() == there.left_out()


def test_a_shard_has_a_part_of_the_names_and_a_version_of_its_own(beside, picture, monkeypatch):
    monkeypatch.setattr(image_chunks, "CHUNK", 4)
    source = at(beside)
    shards = source.shards()
    keys = [[record.key for record in source.scan(shard)] for shard in shards]
    assert [len(part) for part in keys] == [4, 4, 1]
    assert [*chain(*keys)] == sorted(chain(*keys))

    (beside / keys[1][0]).write_bytes(picture((0, 0, 0)) + b" longer")
    (beside / "empty.txt").write_text("no longer empty")
    changed = [
        old.version != new.version for old, new in zip(shards, at(beside).shards(), strict=True)
    ]
    assert changed == [keys[1][0] in part or "empty.png" in part for part in keys]

    # Another picture moves none from one shard to another while an old list of them is scanned.
    (beside / "b0.png").write_bytes(picture())
    again = at(beside)
    now = [[record.key for record in again.scan(shard)] for shard in shards]
    assert [[key for key in part if key != "b0.png"] for part in now] == keys


def test_links_are_followed_loops_are_cut_and_dead_ends_are_problems(tmp_path, picture, scanned):
    folder, elsewhere = tmp_path / "pictures", tmp_path / "elsewhere"
    for place in (folder / "z", elsewhere):
        place.mkdir(parents=True)
        (place / "a.png").write_bytes(picture())
        (place / "a.txt").write_text("text")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "again").symlink_to(elsewhere)
    (folder / "z" / "circle").symlink_to(folder)
    (folder / "self.png").symlink_to(folder / "self.png")
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "gone.txt").write_text("text")
    os.mkfifo(folder / "pipe.png")
    rows = {record.key: (record.problem, image) for _, record, image in scanned(at(folder))}
    assert sorted(rows) == ["again/a.png", "gone.png", "pipe.png", "self.png", "z/a.png"]
    assert rows["gone.png"][1].endswith("gone.png does not exist")
    assert "cannot be read" in rows["self.png"][1]
    assert rows["pipe.png"][1].endswith("pipe.png is not a file: replace or remove it")


def test_a_name_that_is_not_utf8_is_told(tmp_path, picture):
    with open(os.fsencode(tmp_path) + b"/\xff.png", "wb") as file:
        file.write(picture())
    with pytest.raises(LiditError, match="is not UTF-8: rename it"):
        at(tmp_path).shards()


def test_folders_that_hold_nothing(tmp_path):
    with pytest.raises(LiditError, match="is not a folder"):
        Folder(str(tmp_path / "missing")).shards()
    (tmp_path / "a.heic.zip").touch()
    with pytest.raises(LiditError, match=r"holds no image: add .* \(left out: 1 .zip"):
        at(tmp_path).shards()
    with pytest.raises(LiditError, match="the path is empty"):
        Folder("")


def test_a_record_that_has_gone_is_told(beside, scanned):
    source = at(beside)
    (beside / "b.png").unlink()
    (beside / "b.txt").unlink()
    with pytest.raises(LiditError, match=r"b.png has no caption"):
        source.read(Place("b.png//b.png", "b.png", 0, 0))


@pytest.mark.parametrize("listing", [False, True])
def test_captions_are_read_without_their_picture(listing, beside, scanned):
    if listing:
        (beside / "metadata.jsonl").write_text('{"file_name": "b.png", "text": "red"}')
    source = at(beside)
    (place,) = (
        Place(shard, record.key, record.offset, record.length)
        for shard, record, _ in scanned(source)
        if record.key == "b.png"
    )
    expected = source.read(place).captions
    (beside / "b.png").unlink()
    assert read_captions(source, place).content == Record(b"", expected)


def test_a_listing_counts_before_text_files(beside, same_when_read):
    lines = [
        {"file_name": "b.png", "text": "red", "score": 1},
        {"file_name": "./a.jpg", "text": "cat"},
    ]
    (beside / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [row[1:4] for row in same_when_read(at(beside))] == [
        ("b.png", {"text": "red"}, {"score": 1.0}),
        ("a.jpg", {"text": "cat"}, {}),
    ]
    assert "5 .png (a-1/x.png, empty.png, latin.png, …)" in at(beside).left_out()


def test_the_form_of_a_name_is_kept(tmp_path, picture):
    """Disks keep what they are given; keys do not mend it, or the file would not be found."""
    apart = unicodedata.normalize("NFD", "é")
    for name in ("é", apart):
        (tmp_path / f"{name}.png").write_bytes(picture())
        (tmp_path / f"{name}.txt").write_text("accent")
    if len(os.listdir(tmp_path)) < 4:
        pytest.skip("the disk does not tell one form from the other")
    (shard,) = at(tmp_path).shards()
    assert {record.key for record in at(tmp_path).scan(shard)} == {"é.png", f"{apart}.png"}


def at(path):
    return Folder(str(path))
