"""Weights & Biases and trackio, played by a module that writes down its calls."""

import sys
from types import SimpleNamespace

import pytest

from lidit_jax.config.load import load_recipe
from lidit_jax.errors import LiditError
from lidit_jax.training.monitoring import tracker
from lidit_jax.training.monitoring.run_log import RunLog
from tests.training.monitoring.test_run_log import average


@pytest.fixture(params=["wandb", "trackio"])
def package(request, monkeypatch):
    calls = []
    module = SimpleNamespace(
        calls=calls,
        __name__=request.param,
        init=lambda **options: calls.append(("init", options)),
        log=lambda values, step: calls.append(("log", step, values)),
        finish=lambda: calls.append(("finish",)),
    )
    monkeypatch.setitem(sys.modules, request.param, module)
    monkeypatch.setattr(tracker.importlib.util, "find_spec", lambda name: module)
    return module


def run(workdir, name):
    config = load_recipe("demo", [f"training.tracker={name}", "seed=7"])
    with RunLog(workdir, 10, batch_size=4, first_step=0, config=config) as log:
        log.accumulate(average(0.5))
        log.flush(3)


def test_what_is_logged_is_sent_and_a_workdir_stays_one_run(package, tmp_path):
    workdir = tmp_path / "first"
    workdir.mkdir()
    for _ in range(2):
        run(workdir, package.__name__)
    (first, sent, closed), (second, *_) = package.calls[:3], package.calls[3:]
    assert first[1] == second[1]
    assert first[1]["name"] == "first"
    assert first[1]["resume"] == "allow"
    assert first[1]["config"]["seed"] == 7
    assert sent[:2] == ("log", 3)
    assert sent[2]["loss"] == 0.5
    assert closed == ("finish",)


def test_a_tracker_that_is_not_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tracker.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LiditError, match=r"tracker='wandb' is not installed: pip install wandb"):
        run(tmp_path, "wandb")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_tracker_is_refused_by_the_configuration():
    with pytest.raises(LiditError, match=r"config.training.tracker='mlflow': choose one of"):
        load_recipe("demo", ["training.tracker=mlflow"])
