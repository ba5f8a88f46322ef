"""A folder of the cache is whole or not there."""

import pytest

from lidit_jax.io.kept_folders import made_once


def whole(folder):
    return (folder / "last").is_file()


def test_a_folder_is_made_once(tmp_path):
    calls = []

    def make(folder):
        calls.append(folder)
        (folder / "last").write_text("whole")

    kept = tmp_path / "a" / "kept"
    assert [made_once(kept, whole, make) for _ in range(2)] == [kept, kept]
    assert len(calls) == 1
    (kept / "last").unlink()
    (kept / "rest").touch()
    made_once(kept, whole, make)
    assert [path.name for path in kept.iterdir()] == ["last"], "what was not whole is replaced"


def test_a_failure_leaves_nothing(tmp_path):
    def make(folder):
        (folder / "first").touch()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        made_once(tmp_path / "kept", whole, make)
    assert list(tmp_path.iterdir()) == []


def test_another_process_may_finish_first(tmp_path):
    kept = tmp_path / "kept"

    def make(folder):
        (folder / "last").write_text("ours")
        kept.mkdir()
        (kept / "last").write_text("theirs")

    made_once(kept, whole, make)
    assert (kept / "last").read_text() == "theirs"
