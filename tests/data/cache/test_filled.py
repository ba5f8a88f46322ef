"""Prepared data: complete or absent, the same after an interruption, filled by one process."""

import json
import subprocess
import sys

import numpy as np
import pytest

from lidit_jax.data.cache.filled import fill
from lidit_jax.errors import LiditError

ARRAYS = {
    "squares": ((10, 2), np.dtype(np.float32)),
    "shared": ((0, 3), np.dtype(np.uint16)),  # nothing shared, as with a bidirectional encoder
}


class Filler:
    """Writes i**2 for each item; remembers what it was asked for, and may break off."""

    def __init__(self, break_off_at=None):
        self.break_off_at, self.calls, self.reports = break_off_at, [], []

    def __call__(self, arrays, start, stop):
        self.calls.append((start, stop))
        arrays["squares"][start:stop] = np.arange(start, stop)[:, None] ** 2
        if self.break_off_at is not None and stop > self.break_off_at:
            arrays["squares"][start:stop] = -1  # half done
            raise KeyboardInterrupt

    def fill(self, folder):
        report = lambda done, total: self.reports.append((done, total))  # noqa: E731
        fill(folder, {"what": "squares"}, ARRAYS, 10, 4, self, report)


def test_chunks_are_written_and_the_folder_is_complete(tmp_path):
    folder = tmp_path / "new" / "squares-1"
    filler = Filler()
    filler.fill(folder)
    assert filler.calls == [(0, 4), (4, 8), (8, 10)]
    assert filler.reports == [(0, 10), (4, 10), (8, 10), (10, 10)]
    squares = np.load(folder / "squares.npy")
    np.testing.assert_array_equal(squares[:, 1], np.arange(10) ** 2)
    assert np.load(folder / "shared.npy").shape == (0, 3)
    assert json.loads((folder / "description.json").read_text()) == {"what": "squares"}
    assert not folder.with_name("squares-1.partial").exists()


def test_what_is_complete_is_not_computed_again(tmp_path):
    Filler().fill(tmp_path / "data")
    again = Filler()
    again.fill(tmp_path / "data")
    assert again.calls == []
    assert again.reports == [(10, 10)]


@pytest.mark.parametrize("break_off_at", [0, 4, 8])
def test_an_interrupted_fill_goes_on_where_it_stopped(break_off_at, tmp_path):
    folder = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt):
        Filler(break_off_at).fill(folder)
    assert not folder.exists(), "half of it is not a cache"
    rest = Filler()
    rest.fill(folder)
    assert rest.calls[0][0] == break_off_at
    Filler().fill(tmp_path / "uninterrupted")
    for file in ("squares.npy", "shared.npy"):
        expected = (tmp_path / "uninterrupted" / file).read_bytes()
        assert (folder / file).read_bytes() == expected


def test_a_second_process_waits_and_then_finds_it_complete(tmp_path):
    """The first is in the middle of its chunk when the second asks for the same folder."""
    program = (
        "import sys; from pathlib import Path; from tests.data.cache.test_filled import Filler\n"
        "filler = Filler(); filler.fill(Path(sys.argv[1])); print(len(filler.calls), flush=True)"
    )

    class Starter(Filler):
        def __call__(self, arrays, start, stop):
            if start == 0:
                self.other = subprocess.Popen(
                    [sys.executable, "-c", program, tmp_path / "data"],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                assert self.other.stdout.readline().startswith("waiting for another run, which")
            super().__call__(arrays, start, stop)

    first = Starter()
    first.fill(tmp_path / "data")
    assert first.other.communicate()[0] == "0\n", "the second computes nothing"
    assert first.other.returncode == 0


@pytest.mark.parametrize("place", ["file/data", "/proc/lidit/data"])
def test_a_folder_that_cannot_be_written_is_named(place, tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / place
    with pytest.raises(LiditError) as refusal:
        Filler().fill(folder)
    message = str(refusal.value)
    assert message.startswith(f"cannot write prepared data to {folder.parent}: ")
    assert message.endswith("; set config.data.cache_dir to a folder with free space")
