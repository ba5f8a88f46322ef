"""The script of this folder, with moments that are the same each time."""

import numpy as np

from tests.faults.kill_and_resume import main
from tests.faults.runs import unequal


def test_a_run_that_is_killed_and_terminated_ends_as_if_nothing_had_happened(capsys):
    assert main(["--kills=3", "--terms=1", "--steps=30", "--seed=1"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("3 SIGKILL, 1 SIGTERM in 30 steps on 1 devices, seed 1\n")
    assert " restores, 0 refused\n" in shown
    assert " steps done again, 0 lost beyond the last checkpoint\n" in shown
    assert " arrays, 0 differ\n" in shown


def test_the_comparison_sees_a_single_bit():
    state = {"a": np.zeros(3, np.float32), "step": np.int32(4)}
    other = {"a": np.array([0, -0.0, 0], np.float32), "step": np.int32(4)}
    assert unequal(state, state) == []
    assert unequal(state, other) == ["a"]
    assert unequal(state, state | {"b": np.zeros(1)}) == ["b"]
    assert unequal(state, state | {"step": np.int64(4)}) == ["step"]
