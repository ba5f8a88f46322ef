"""Patterns of file names: those of shells, relative to the folder before the first sign."""

import pytest

from lidit_jax.data.sources.shard_names import NamedFiles, expand_braces
from lidit_jax.errors import LiditError


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{8..11}.tar", ["8.tar", "9.tar", "10.tar", "11.tar"]),
        ("{08..11}.tar", ["08.tar", "09.tar", "10.tar", "11.tar"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}/{0..1}", ["a/0", "a/1", "b/0", "b/1"]),
        ("{a,{b,c}x}", ["a", "bx", "cx"]),
        ("{,old/}a", ["a", "old/a"]),
        ("plain", ["plain"]),
    ],
)
def test_braces(pattern, names):
    assert sorted(expand_braces(pattern)) == sorted(names)


def test_braces_that_cannot_be_meant():
    with pytest.raises(LiditError, match=r"\{000-123\} names nothing: write \{000\.\.123\}"):
        expand_braces("{000-123}.tar")
    with pytest.raises(LiditError, match="names more than 100,000 files"):
        expand_braces("{0..999999999999}.tar")


@pytest.fixture
def root(tmp_path):
    for name in ("0.tar", "1.tar", "1.txt", "x/2.tar", "x/y/3.TAR", "[odd].tar", ".4.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("", ["0.tar", "1.tar", "[odd].tar", "x/2.tar", "x/y/3.TAR"]),
        ("0.tar", ["0.tar"]),
        ("[odd].tar", ["[odd].tar"]),
        ("?.tar", ["0.tar", "1.tar"]),
        ("{0..1}.tar", ["0.tar", "1.tar"]),
        ("*/*.tar", ["x/2.tar"]),
        ("**/*.tar", ["0.tar", "1.tar", "[odd].tar", "x/2.tar"]),
        ("x/*.tar", ["2.tar"]),
        ("{x/2.tar,x/y/*}", ["x/2.tar", "x/y/3.TAR"]),
    ],
)
def test_what_a_path_names(root, path, names, monkeypatch):
    assert list(NamedFiles(f"{root}/{path}", ".tar").find()) == names
    monkeypatch.chdir(root)
    if path:
        assert list(NamedFiles(path, ".tar").find()) == names


def test_what_is_missing_is_told(root):
    with pytest.raises(LiditError, match=r"/2.tar \(and 7 more\) does not exist"):
        NamedFiles(f"{root}/{{0..9}}.tar", ".tar").find()
    with pytest.raises(LiditError, match=r"9\.tar does not exist"):
        NamedFiles(f"{root}/9.tar", ".tar").find()
    with pytest.raises(LiditError, match=r"z\*.tar names no file: mend the pattern"):
        NamedFiles(f"{root}/z*.tar", ".tar").find()
    with pytest.raises(LiditError, match=r"holds no .parquet: name a folder"):
        NamedFiles(str(root), ".parquet").find()
