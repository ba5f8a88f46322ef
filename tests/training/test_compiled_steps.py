"""A run in two image shapes: two programs of the step, and everything as in a run of one."""

import contextlib
import json
import shutil

import jax
import numpy as np
import pytest

from lidit_jax.checkpoints.orbax import Checkpoints
from lidit_jax.training import loop
from lidit_jax.training.loop import train
from tests.training.stand_ins import HELD_OUT, RECORDS, Linear
from tests.training.test_resume import losses

COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def config(tiny_config, monkeypatch):
    """`config(...)` of a run that trains the stand-in."""
    monkeypatch.setattr(loop, "make_task", lambda config, saved: Linear(config))
    settings = ("training.image_every=0", "optimizer.learning_rate=0.1", "optimizer.warmup_steps=0")
    return lambda *more: tiny_config(*settings, *more)


@contextlib.contextmanager
def compilations(names):
    """The names of compiled programs, in order."""
    found = []

    def listen(event, seconds, fun_name="", **_):
        if event == COMPILED and fun_name in names:
            found.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_two_shapes_are_two_programs_that_are_compiled_ahead_and_told(config, tmp_path, capsys):
    with compilations(("jit(train_step)", "jit(_valid_sum)")) as found:
        state = train(config(), tmp_path)
    assert state.step == 8
    assert found == ["jit(train_step)"] * 2 + ["jit(_valid_sum)"] * 2
    shown = capsys.readouterr().out
    for name in ("step", "validation"):
        for size in ("24x48", "32x32"):
            assert f"compiled the {name} for {size} px in " in shown
    assert " s (4 of 4)" in shown
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    told = [row for row in rows if "compiled_programs" in row]
    assert told[-1]["compiled_programs"] == 4
    assert told[-1]["compile_seconds"] > 0


def test_shapes_that_the_rest_of_a_run_does_not_use_are_not_compiled(config, tmp_path):
    with compilations(("jit(train_step)",)) as found:
        train(config("training.steps=1"), tmp_path)
    assert len(found) == 1


def test_a_run_in_two_shapes_goes_on_to_the_bit(config, tmp_path, terminated):
    """It is stopped by a signal while shapes still alternate."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    expected = train(config(), whole)
    with terminated(3):
        assert train(config(), stopped).step == 3
    state = train(config(), stopped)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert losses(stopped) == losses(whole)
    assert losses(stopped, "validation_loss")[8] == losses(whole, "validation_loss")[8]


def test_validation_over_shapes_is_the_mean_over_all_records(config, tmp_path):
    """Neither shape fills a batch of eight devices."""
    train(config(), tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        weights = {
            "validation_loss": checkpoints.weights(8, "params").load(),
            "validation_loss_ema": checkpoints.weights(8, "ema_params").load(),
        }
    for name, params in weights.items():
        (factor,) = np.asarray(params["scale"]["kernel"]).ravel()
        values = [
            ((RECORDS + 100 * bucket + row) / RECORDS * factor - 1) ** 2
            for bucket, count in enumerate(HELD_OUT)
            for row in range(count)
        ]
        # Each value is of float32, and a mean over at most 20 equal pixels.
        assert losses(tmp_path, name)[8] == pytest.approx(np.mean(values), rel=1e-5)


def test_a_run_whose_steps_are_over_compiles_no_step(config, tmp_path):
    train(config("training.steps=4"), tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    with compilations(("jit(train_step)",)) as found:
        assert train(config("training.steps=4"), tmp_path / "again").step == 4
    assert found == []
