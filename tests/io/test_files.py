"""Files of a folder are named and read alike on a disk and in a bucket."""

import pickle

import pytest

from lidit_jax.errors import LiditError
from lidit_jax.io.files import Files
from tests.stores import gcs_store

CONTENT = {"a.txt": b"0123456789", "b/c d.bin": b"", "b/ü.bin": b"xyz"}


@pytest.fixture(params=["local", "bucket"])
def files(request, tmp_path):
    """The same files in both; a file that is not asked for lies beside the folder."""
    everything = {f"root/{name}": content for name, content in CONTENT.items()}
    everything |= {"root/.hidden": b"", "root/@eaDir/a.txt": b"", "root2/other.txt": b""}
    if request.param == "local":
        for name, content in everything.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
        yield Files(f"{tmp_path}/root/")
        return
    with gcs_store() as store:
        objects = store.buckets["bucket"]
        for number, (name, content) in enumerate(everything.items()):
            objects[f"deep/{name}"] = (number, content)
        objects["deep/root/"] = objects["deep/root/b//odd.txt"] = (99, b"")
        yield Files("gs://bucket/deep/root/")


def test_names_and_any_bytes(files):
    files = pickle.loads(pickle.dumps(files))
    listing = files.listing()
    assert list(listing.files) == list(CONTENT)
    assert listing.broken == listing.errors == []
    for name, content in CONTENT.items():
        assert files.read(name) == content
        assert files.has(name)
        assert files.version(name) == listing.files[name]
        for opened in (files.open(name), files.stream(name)):
            with opened as stream:
                assert stream.read(2) == content[:2]
                stream.seek(0)
                assert stream.read() == content
    assert files.read_range("a.txt", 3, 4) == b"3456"
    assert files.read_range("a.txt", 8, 4) == b"89", "it ends before"
    assert not files.has("b")
    assert not files.has("gone")
    assert {"c d.bin", "ü.bin"} <= set(files.inside("b"))
    assert files.inside("gone") == []
    assert files.named("a.txt") == f"{files.root}/a.txt"


def test_what_is_not_there_is_told_by_its_name(files):
    for read in (files.read, files.open, files.stream, files.version):
        with pytest.raises(LiditError, match=r"root/gone.png does not exist"):
            read("gone.png")
    with pytest.raises(LiditError, match=r"root/gone.png does not exist"):
        files.read_range("gone.png", 0, 1)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(LiditError, match="is not a folder: name one that exists"):
        Files(str(tmp_path / "gone")).listing()
    with gcs_store(), pytest.raises(LiditError, match="holds no file: name a folder that does"):
        Files("gs://bucket/gone").listing()
    with gcs_store(), pytest.raises(LiditError, match=r"gs://missing/.* (exist|read)"):
        Files("gs://missing/gone").listing()
    for path, expected in (("", "the path is empty"), ("ftp://x/y", "name a folder, or a bucket")):
        with pytest.raises(LiditError, match=expected):
            Files(path)


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    (tmp_path / "a").write_bytes(b"old content")
    files = Files(str(tmp_path))
    assert files.read_range("a", 0, 3) == b"old"
    version = files.version("a")
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "new").replace(tmp_path / "a")
    assert files.read_range("a", 0, 3) == b"new"
    assert files.version("a") != version
