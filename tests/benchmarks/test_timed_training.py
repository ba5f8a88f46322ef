"""A training that must end in time: how its seconds are divided, and what it leaves."""

import tarfile

import pytest

from lidit_jax.benchmarks import timed_training
from lidit_jax.benchmarks.timed_training import again, divide, last_call, reserve


def test_the_decay_has_two_fifths_of_the_steps():
    times = divide(240.0, 40.0)
    assert times.trained == 240 - reserve(240) == 200
    steps = 200 - 40 - again(40)
    assert times.stable == pytest.approx(40 + 0.6 * steps)


def test_a_start_that_takes_everything_leaves_no_steps():
    times = divide(60.0, 50.0)
    assert times.stable == 50, "the run is stopped, and exported, at once"


def test_a_late_decay_is_stopped_later_than_a_finished_one():
    assert 0 < last_call(240) < reserve(240)
    assert 0 < last_call(60) < reserve(60)


def test_a_file_that_is_too_large_is_cut_into_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(timed_training, "_LARGEST_FILE", 10)
    (tmp_path / "out").mkdir()
    small, large = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    small.write_bytes(b"0123456789")
    large.write_bytes(b"0123456789abcdefghijk")
    assert timed_training._moved(small, tmp_path / "out") == ["a.safetensors"]
    names = timed_training._moved(large, tmp_path / "out")
    assert names == [f"b.safetensors.0{i}" for i in range(3)]
    joined = b"".join((tmp_path / "out" / name).read_bytes() for name in names)
    assert joined == large.read_bytes()


def test_small_files_become_one(tmp_path):
    model, run = tmp_path / "model", tmp_path / "run"
    (run / "images").mkdir(parents=True)
    model.mkdir()
    for file in (model / "config.json", model / "model.safetensors", run / "metrics.jsonl"):
        file.touch()
    for step in (1, 2, 3):
        (run / "images" / f"step_{step:06d}.png").touch()
    timed_training._archive(model, run, tmp_path / "model.tar")
    with tarfile.open(tmp_path / "model.tar") as archive:
        pictures = ["run/step_000002.png", "run/step_000003.png"]
        assert sorted(archive.getnames()) == ["config.json", "run/metrics.jsonl", *pictures]
