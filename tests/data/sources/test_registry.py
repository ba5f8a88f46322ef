"""Which format a path without one has."""

import pytest

from lidit_jax.data.sources.class_folders import ClassFolders
from lidit_jax.data.sources.folder import Folder
from lidit_jax.data.sources.registry import FORMATS, guess_format, open_records
from lidit_jax.data.sources.webdataset import WebDataset
from lidit_jax.errors import LiditError

FOLDERS = {
    "folder": [
        ["a.png", "a.txt"],
        ["a.png"],
        ["more/a.png", "more/a.TXT"],
        ["b/a.jpg", "b/old.tar", "captions.jsonl"],
        ["b/a.jpg", "metadata.csv"],
    ],
    "classes": [["cat/a.jpg", "dog/b.jpg", "classes.txt"], ["n01440764/x.JPEG"]],
    "webdataset": [["000.tar", "001.tar", "0_stats.json"], ["more/000.TAR"], ["000.tar.gz"]],
    "parquet": [["data/train-00000-of-00002.parquet", "README.md"]],
    "array_record": [["x.array_record-00000-of-00010"], ["a.arrayrecord"]],
}


@pytest.mark.parametrize(
    ("kind", "names"), [(kind, names) for kind, all_of in FOLDERS.items() for names in all_of]
)
def test_the_files_of_a_folder_tell(tmp_path, kind, names):
    for name in [*names, ".DS_Store", "._a.parquet"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert guess_format(str(tmp_path)) == kind


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("photos/{000..123}.tar", "webdataset"),
        ("gs://bucket/photos/*.tar", "webdataset"),
        ("photos.tar.gz", "webdataset"),
        ("s3://bucket/x.parquet", "parquet"),
        ("hf://datasets/USER/NAME", "parquet"),
        ("x.array_record-00001-of-00010", "array_record"),
    ],
)
def test_a_suffix_tells_without_a_look(path, kind):
    assert guess_format(path) == kind


def test_what_does_not_tell_is_asked_for(tmp_path):
    with pytest.raises(LiditError, match="does not exist: name a source as FORMAT:PATH"):
        guess_format(str(tmp_path / "missing"))
    with pytest.raises(LiditError, match="holds no captioned images: name a source"):
        guess_format(str(tmp_path))
    (tmp_path / "a.mp4").touch()
    with pytest.raises(LiditError, match=r"holds no captioned images, only 1 \.mp4 \(a\.mp4\)"):
        guess_format(str(tmp_path))
    (tmp_path / "a.tar").touch()
    (tmp_path / "a.parquet").touch()
    with pytest.raises(LiditError, match="holds parquet and webdataset: name one, parquet:"):
        guess_format(str(tmp_path))


def test_a_source_says_how_it_is_opened_again(tmp_path, picture, copy):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(picture())
    for source, kind in (
        (f"folder:{tmp_path}", Folder),
        (f"classes:{tmp_path}", ClassFolders),
        (f"webdataset:{tmp_path}", WebDataset),
    ):
        opened = open_records(source)
        assert isinstance(opened, kind)
        assert repr(opened) == source
    url = copy(tmp_path, "gs")
    assert repr(open_records(url)) == f"classes:{url}"
    assert repr(open_records(f"folder:{url}")) == f"folder:{url}"


def test_examples_have_their_formats():
    for name, known in FORMATS.items():
        assert known.example.startswith(f"{name}:")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("photos", "{here}/photos"),
        ("./photos", "{here}/photos"),
        ("photos/{0..9}.tar", "{here}/photos/{0..9}.tar"),
        ("*.tar", "{here}/*.tar"),
        ("missing", "missing"),
        ("missing/*.tar", "missing/*.tar"),
        ("gs://bucket/photos/*.tar", "gs://bucket/photos/*.tar"),
    ],
)
def test_paths_of_this_machine_become_absolute(tmp_path, monkeypatch, path, expected):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    expected = expected.replace("{here}", str(tmp_path))
    assert repr(open_records(f"webdataset:{path}")) == f"webdataset:{expected}"


def test_a_folder_of_tfds_may_have_a_split(tmp_path, monkeypatch):
    (tmp_path / "coco").mkdir()
    monkeypatch.chdir(tmp_path)
    assert repr(open_records("tfds:coco@test")) == f"tfds:{tmp_path}/coco@test"
    assert repr(open_records("tfds:mnist@test")) == "tfds:mnist@test"
