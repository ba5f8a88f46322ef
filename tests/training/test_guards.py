"""Updates that are not finite are left out, counted, and end the run when they go on."""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.checkpoints.state import create_state
from lidit_jax.config.load import load_recipe
from lidit_jax.errors import LiditError
from lidit_jax.training import guards
from lidit_jax.training.device_prefetch import DevicePrefetch
from lidit_jax.training.guards import SkippedUpdates, Watchdog, guarded_step
from lidit_jax.training.loop import train
from lidit_jax.training.optimizers import make_optimizer, rate_of
from lidit_jax.training.step import make_train_step

pytestmark = pytest.mark.output


def linear(params, frozen, batch, key):
    """A loss whose gradient is the batch."""
    return jnp.sum(params["w"] * batch["gradient"]), {}


def steps(gradients, *overrides):
    """The states and metrics after each of these gradients."""
    config = load_recipe("demo", ["optimizer.warmup_steps=0", *overrides])
    optimizer = make_optimizer(config)
    state = create_state(lambda key: {"w": jnp.ones(2)}, optimizer, config)
    step = jax.jit(make_train_step(linear, config))
    history = [(state, None)]
    for gradient in gradients:
        history.append(
            step(history[-1][0], {}, {"gradient": jnp.full(2, gradient)}, rate_of(config))
        )
    return history


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_an_update_that_is_not_finite_changes_nothing_but_the_counters(broken):
    (_, _), (before, first), (after, metrics), (later, _) = steps([1.0, broken, 1.0])
    assert float(first["applied"].compute()) == 1
    assert float(metrics["applied"].compute()) == 0
    assert metrics["loss"].count == 0, "it weighs nothing in the averages"
    assert (after.step, after.position) == (2, 2), "its records count as seen"
    for name in ("params", "ema_params", "opt_state", "key"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))
    assert not np.array_equal(later.params["w"], after.params["w"]), "and training goes on"


def test_the_host_learns_of_it_some_steps_late_and_names_step_and_records(capsys):
    guard = SkippedUpdates(limit=10)
    for step in range(1, 12):
        guard.watch(step, jnp.float32(step != 2), np.arange(3) + 100 * step)
        assert guard.total == (step >= 10), "8 steps later"
    assert "step 2 (records 200, 201, 202, ...): loss or gradient" in capsys.readouterr().out
    guard.drain()
    assert guard.total == 1


def test_many_in_a_row_end_the_run():
    guard = SkippedUpdates(limit=3)
    for step, applied in enumerate([0, 0, 1, 0, 0, 0], 1):
        guard.watch(step, jnp.float32(applied), np.arange(2))
    with pytest.raises(LiditError, match="3 updates in a row were not finite, the last at step 6"):
        guard.drain()
    assert guard.total == 5


def test_spikes_are_skipped_once_the_usual_norm_is_known():
    history = steps([1.0] * 60 + [100.0, 1.0], "optimizer.skip_spikes=10")
    (before, _), (spike, metrics), (after, _) = history[-3:]
    np.testing.assert_array_equal(spike.params["w"], before.params["w"])
    assert float(metrics["update_norm"].compute()) == 0
    assert not np.array_equal(after.params["w"], spike.params["w"])
    early = steps([1.0, 100.0], "optimizer.skip_spikes=10")
    assert not np.array_equal(early[-1][0].params["w"], early[-2][0].params["w"])


def test_a_late_step_shows_where_all_threads_are(capfd):
    with Watchdog(minutes=0.2 / 60) as watchdog:
        watchdog.step()
        time.sleep(0.5)
    assert "test_a_late_step_shows_where_all_threads_are" in capfd.readouterr().err


def test_without_a_standard_error_a_run_goes_on(monkeypatch):
    monkeypatch.setattr(sys, "__stderr__", None)
    monkeypatch.setattr(sys, "stderr", None)  # so it is in a process that was started with 2>&-
    with Watchdog(minutes=1) as watchdog:
        watchdog.step()


def test_on_gke_the_stacks_go_to_the_sidecar(monkeypatch, tmp_path):
    monkeypatch.setattr(guards, "_SIDECAR", tmp_path)
    with Watchdog(minutes=0.2 / 60) as watchdog:
        watchdog.step()
        time.sleep(0.5)
    (stacks,) = tmp_path.iterdir()
    assert "test_on_gke_the_stacks_go_to_the_sidecar" in stacks.read_text()


def test_a_step_refuses_transfers_that_nobody_asked_for():
    """On a CPU values are read in place, so that only the way to the device can be seen here."""
    double = jax.jit(lambda x: 2 * x)
    on_device = double(jnp.ones(2))
    with guarded_step(1):
        assert jax.device_get(double(on_device)).tolist() == [4, 4]
        assert jax.device_get(double(jax.device_put(np.ones(2, np.float32)))).tolist() == [2, 2]
        with pytest.raises(jax.errors.JaxRuntimeError, match="host-to-device"):
            double(np.ones(2, np.float32))
    assert double(np.ones(2, np.float32)).tolist() == [2, 2], "outside of a step they are allowed"


def test_a_run_ends_at_a_batch_that_was_left_on_the_host(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(DevicePrefetch, "put", lambda self, batch: batch)
    with pytest.raises(jax.errors.JaxRuntimeError, match="host-to-device"):
        train(tiny_config(), tmp_path)
