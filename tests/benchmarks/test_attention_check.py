"""The check of the GPU's kernel, with XLA's own in its place."""

import threading

from lidit_jax.benchmarks import attention_check
from lidit_jax.benchmarks.attention_check import Case, errors, times


def test_errors_are_those_of_bfloat16():
    noted = {}
    errors(noted.update, lambda: 100.0, tiny=True)
    assert noted["kernel"] == "xla"
    assert len(noted["errors"]) == 2
    for row in noted["errors"]:
        for who in ("kernel", "plain"):
            # Outputs and gradients are rounded to 8 bits some times over.
            assert all(0 < row[who][name] < 10 * 2**-8 for name in ("out", "dq", "dk", "dv"))


def test_a_shape_that_is_refused_costs_one_row(monkeypatch):
    def refuse(*_, **__):
        raise ValueError("no kernel")

    monkeypatch.setattr(attention_check, "gpu_attention", refuse)
    noted = {}
    errors(noted.update, lambda: 100.0, tiny=True)
    assert [row["error"] for row in noted["errors"]] == ["ValueError: no kernel"] * 2


def test_rows_are_noted_one_by_one_and_what_is_slow_is_left_out(monkeypatch):
    done = threading.Event()

    def slow(case):
        if case.masked:
            done.wait()
        return {}

    monkeypatch.setattr(attention_check, "_compared", slow)
    monkeypatch.setattr(attention_check, "_ENOUGH", 0.0)
    noted, counts = {}, []

    def note(facts):
        noted.update(facts)
        counts.append(len(facts.get("errors", ())))

    errors(note, lambda: 2.0, tiny=True)
    done.set()
    assert counts == [1, 0]
    assert noted["errors_left_out"] == "1 cases: out of time"


def test_few_programs_and_the_cheap_ones_first():
    """Each takes some seconds to build."""
    assert len(attention_check._TIMED) <= 12
    assert attention_check._TIMED[0] == (attention_check._AT_256[0], "kernel", True)
    assert max(case.N * case.S for case in attention_check._CASES) < 2**17


def test_times_are_taken_while_there_is_time():
    noted = {}
    times(noted.update, lambda: 100.0, tiny=True)
    assert [(row["who"], row["backward"]) for row in noted["times"]] == [
        *(("kernel", True), ("kernel", False)),
        *(("plain", True), ("plain", False)),
    ]
    assert all(row["flops_per_second"] > 0 for row in noted["times"])
    times(noted.update, lambda: 1.0, tiny=True)
    assert noted["times_left_out"] == "out of time"


def test_a_case_is_told():
    assert Case(2, 7, 5, 2, 8, masked=True).description == "2 x 7 x 5, 2 heads of 8, masked"
