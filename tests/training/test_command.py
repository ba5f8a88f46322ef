"""`lidit train`: mistakes that show once it starts; each one line, and nothing left behind."""

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from lidit_jax.cli import main
from lidit_jax.training import loop, preparation

pytestmark = pytest.mark.output

RECIPE = Path(__file__).parents[1] / "tiny_recipe.py"


@pytest.fixture
def run_train(tiny_config):
    """`run_train(workdir, **settings)` runs the tiny recipe and returns the exit status."""

    def run(workdir, **settings):
        config = tiny_config()
        settings = {
            "encoders.sources": config.encoders.sources,
            "data.cache_dir": config.data.cache_dir,
        } | settings
        options = [f"--config.{name}={value}" for name, value in settings.items()]
        return main(["train", f"--config={RECIPE}", f"--workdir={workdir}", *options])

    return run


@pytest.fixture
def refuse(run_train, capsys):
    """`refuse(workdir, **settings)` runs the tiny recipe and returns the one line on stderr."""

    def run(workdir, **settings):
        assert run_train(workdir, **settings) == 2
        shown = capsys.readouterr()
        assert shown.err.startswith("lidit: error: ")
        assert shown.err.count("\n") == 1
        return shown.err

    return run


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/lidit/run"])
def test_an_unwritable_workdir(place, refuse, tmp_path):
    (tmp_path / "file").touch()
    assert f"--workdir: cannot write to {tmp_path / place} (" in refuse(tmp_path / place)


def test_an_unwritable_cache(refuse, tmp_path):
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "cache"
    error = refuse(tmp_path / "run", **{"data.cache_dir": cache})
    assert f"config.data.cache_dir: cannot write to {cache}/latents-" in error
    assert "(Not a directory): name a folder that you may write to" in error
    assert not (tmp_path / "run").exists()


def test_an_unknown_source_of_data(refuse, tmp_path):
    error = refuse(tmp_path / "run", **{"data.source": "disk"})
    assert "config.data.source='disk': choose one of 'scenes', 'index', " in error
    assert not (tmp_path / "run").exists()


def test_a_missing_encoder(refuse, tmp_path):
    error = refuse(tmp_path / "run", **{"encoders.sources": ("none",)})
    assert "no encoder 'none': give a folder, a .gguf file, a hub id" in error
    assert not (tmp_path / "run").exists()


def test_a_mesh_that_does_not_fit(refuse, tmp_path):
    assert "does not fit 8 devices" in refuse(tmp_path / "run", **{"mesh.data": 3})
    assert not (tmp_path / "run").exists()


def test_the_workdir_of_another_run(refuse, trained):
    assert "holds a run with config.seed=0, not 1: name another workdir" in refuse(trained, seed=1)


def test_a_damaged_checkpoint(refuse, trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained / "checkpoints", workdir / "checkpoints")
    arrays = workdir / "checkpoints" / "8" / "state" / "d"
    max(arrays.iterdir(), key=lambda file: file.stat().st_size).write_bytes(b"")
    error = refuse(workdir)
    assert f"cannot restore checkpoint {workdir}/checkpoints/8: " in error
    assert "delete that folder to continue from the previous one" in error


def test_a_disk_that_is_full_at_the_start(refuse, tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "config.json")

    monkeypatch.setattr(loop, "train", no_space)
    error = refuse(tmp_path / "run")
    assert "no space left for config.json: make room, and run the same command to continue" in error


@pytest.mark.parametrize("status", [0, 75])
def test_sigterm_before_the_first_step_stops_in_one_line(
    status, run_train, tmp_path, monkeypatch, capsys
):
    def terminate(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    def unheard(*_):
        raise AssertionError("nobody listens to SIGTERM")

    monkeypatch.setenv("LIDIT_STOPPED_STATUS", str(status))
    monkeypatch.setattr(preparation, "configured_text", terminate)
    before = signal.signal(signal.SIGTERM, unheard)
    try:
        assert run_train(tmp_path / "run") == status
        assert signal.getsignal(signal.SIGTERM) is unheard, "as it was"
    finally:
        signal.signal(signal.SIGTERM, before)
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == "stopped; run the same command to continue"
    assert shown.err == ""
    assert not (tmp_path / "run").exists()
