"""A training that must end in time: how its seconds are divided, and what it leaves."""

import contextlib
import tarfile
import types

import pytest

from lidit_jax.benchmarks import timed_training
from lidit_jax.benchmarks.timed_training import (
    export_reserve,
    late_reserve,
    restart_seconds,
    split_seconds,
)


def test_the_decay_has_two_fifths_of_the_steps():
    times = split_seconds(240.0, 40.0, 30.0)
    assert times.trained == 240 - export_reserve(240) == 200
    assert times.decays
    assert times.stable == pytest.approx(40 + 0.6 * (200 - 40 - 30))


def test_a_start_that_takes_everything_leaves_no_steps():
    times = split_seconds(60.0, 50.0, 20.0)
    assert times.stable == 50, "the run is stopped, and exported, at once"
    assert not times.decays


def test_a_decay_that_is_shorter_than_the_restart_is_left_out():
    """The constant rate then goes on to the end."""
    times = split_seconds(240.0, 90.0, 35.0)
    assert times == (200.0, False, 200.0)
    assert split_seconds(240.0, 60.0, 35.0).decays


def test_a_restart_compiles_anew_unless_the_step_was_kept():
    assert restart_seconds(100.0, 70.0, cached=False) == 100
    assert restart_seconds(100.0, 70.0, cached=True) == pytest.approx(30 + 0.3 * 70)


def test_a_kept_step_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    assert not timed_training._is_cached()
    (tmp_path / "jit_train_step-0123-cache").touch()
    assert timed_training._is_cached()


class FakeRun:
    """Ten steps a second, from the 90th second on."""

    step, logged, prepared = 1000, 1000, 0.0

    def __init__(self, clock):
        self.clock, self.phases = clock, []

    @contextlib.contextmanager
    def phase(self, settings):
        self.phases.append(settings)
        yield types.SimpleNamespace(poll=lambda: 0)

    def speeds(self):
        return [10.0] if self.clock.now >= 90 else []

    def wait(self, process, done):
        while not done():
            self.clock.now += 1

    def stop(self, process):
        pass


class FakeClock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("cached", [True, False])
def test_without_time_for_a_restart_there_is_one_phase_and_the_page_says_so(cached, monkeypatch):
    """Of 90 s until the first step all but 20 were spent on compiling."""
    clock, noted = FakeClock(), {}
    run = FakeRun(clock)
    monkeypatch.setattr(timed_training, "_is_cached", lambda: cached)
    monkeypatch.setattr(timed_training.time, "time", lambda: 70.0)
    timed_training._both_phases(run, noted.update, clock, 280.0)
    assert noted["a_restart_takes"] == pytest.approx(41 if cached else 90)
    assert len(run.phases) == (2 if cached else 1)
    assert noted["steps_per_second"] == 10.0
    if cached:
        assert noted["decay_steps"] > 300
    else:
        assert noted["decay"] == "skipped: shorter than the restart"
        assert clock.now == pytest.approx(240.0, abs=1)


def test_a_late_decay_is_stopped_later_than_a_finished_one():
    assert 0 < late_reserve(240) < export_reserve(240)
    assert 0 < late_reserve(60) < export_reserve(60)


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
