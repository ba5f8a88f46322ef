"""The share of time that went into steps that still count."""

import pytest

from lidit_jax.training.monitoring.goodput import Goodput


def started(step, when):
    return {"step": step, "started": when}


def steps(stop, count, seconds):
    return {"step": stop, "steps": count, "productive_seconds": seconds}


def test_a_first_start_counts_its_own_steps():
    goodput = Goodput([], 0, begun=100.0)
    goodput.add(6.0)
    assert goodput.fraction(110.0) == pytest.approx(0.6)


def test_time_between_two_starts_counts_as_lost():
    earlier = [started(0, 100.0), steps(10, 10, 10.0), steps(20, 10, 10.0)]
    goodput = Goodput(earlier, 20, begun=150.0)
    goodput.add(10.0)
    assert goodput.fraction(200.0) == pytest.approx(30 / 100)


def test_steps_that_are_done_anew_do_not_count_twice():
    earlier = [started(0, 100.0), steps(10, 10, 10.0), steps(20, 10, 10.0), {"step": 20, "a": 1}]
    assert Goodput(earlier, 15, begun=130.0).fraction(200.0) == pytest.approx(15 / 100)
    again = [*earlier, started(15, 130.0), steps(20, 5, 8.0)]
    assert Goodput(again, 20, begun=140.0).fraction(200.0) == pytest.approx(23 / 100)


def test_a_run_from_before_this_was_recorded_begins_now():
    assert Goodput([{"step": 10, "loss": 1.0}], 10, begun=100.0).fraction(200.0) == 0
