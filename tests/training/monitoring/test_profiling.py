"""Traces of some steps: planned, asked for by a file, asked for by a signal."""

import contextlib
import os
import signal

import jax
import jax.numpy as jnp
import pytest

from lidit_jax.config.schema import TrainingConfig
from lidit_jax.training.monitoring.profiling import REQUEST, Profiler


@pytest.fixture
def traces(monkeypatch):
    """Begins and ends of traces, in place of real ones."""
    events = []

    @contextlib.contextmanager
    def trace(folder):
        events.append("begin")
        yield
        events.append("end")

    monkeypatch.setattr(jax.profiler, "trace", trace)
    return events


def run(workdir, events, steps=12, at=None, **fields):
    """Twelve steps; `at[step]()` is called during a step. Returns what happened before which."""
    training = TrainingConfig(log_every=4, profile_steps=2, **fields)
    with Profiler(workdir, training, lambda text: None) as profiler:
        for step in range(1, steps + 1):
            profiler.step(step, jnp.zeros(1))
            events.append(step)
            if at and step in at:
                at[step]()
    return events


def test_the_steps_of_the_configuration(traces, tmp_path):
    events = run(tmp_path, traces, steps=5, profile_from=3)
    assert events == [1, 2, "begin", 3, 4, "end", 5]


def test_a_trace_that_the_run_ends_in_is_kept(traces, tmp_path):
    assert run(tmp_path, traces, steps=3, profile_from=3)[-2:] == [3, "end"]


@pytest.mark.parametrize("way", ["file", "signal"])
def test_a_request_is_answered_after_the_next_report(way, traces, tmp_path):
    ask = {
        "file": lambda: (tmp_path / REQUEST).touch(),
        "signal": lambda: os.kill(os.getpid(), signal.SIGUSR1),
    }[way]
    events = run(tmp_path, traces, at={2: ask})
    assert events == [1, 2, 3, 4, "begin", 5, 6, "end", 7, 8, 9, 10, 11, 12], "once"
    assert not (tmp_path / REQUEST).exists()


def test_the_signal_means_what_it_meant_when_the_run_is_over(traces, tmp_path):
    before = signal.getsignal(signal.SIGUSR1)
    run(tmp_path, traces, steps=1)
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_real_trace_lies_in_the_workdir(tmp_path):
    run(tmp_path, [], steps=3, profile_from=1)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
