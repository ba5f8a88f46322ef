"""Folders of prepared data: named by their content, locked and writable."""

import pytest

from lidit_jax.data.cache.folders import alone, content_key, writable_cache_folder
from lidit_jax.errors import LiditError


def test_the_name_changes_with_the_content():
    key = content_key("text", {"layer": -3, "captions": "a"})
    assert key == content_key("text", {"captions": "a", "layer": -3})
    assert key != content_key("text", {"layer": -2, "captions": "a"})
    assert key.startswith("text-")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(LiditError, match=r"set config\.data\.cache_dir to a folder with free space"),
        writable_cache_folder(tmp_path / "file" / "data"),
    ):
        pass


def test_a_lock_is_released_at_the_end(tmp_path, capsys):
    for _ in range(2):
        with alone(tmp_path / "data"):
            pass
    assert capsys.readouterr().out == ""
