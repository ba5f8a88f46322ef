"""The check of the GPU's kernel, with XLA's own in its place."""

from lidit_jax.benchmarks import attention_check
from lidit_jax.benchmarks.attention_check import Case, errors, times


def test_errors_are_those_of_bfloat16():
    noted = {}
    errors(noted.update, tiny=True)
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
    errors(noted.update, tiny=True)
    assert [row["error"] for row in noted["errors"]] == ["ValueError: no kernel"] * 2


def test_times_are_taken_while_there_is_time():
    noted = {}
    times(noted.update, lambda: 100.0, tiny=True)
    assert [(row["who"], row["backward"]) for row in noted["times"]] == [
        *(("kernel", False), ("kernel", True)),
        *(("plain", False), ("plain", True)),
    ]
    assert all(row["flops_per_second"] > 0 for row in noted["times"])
    times(noted.update, lambda: 1.0, tiny=True)
    assert noted["times_left_out"] == "no time for more"


def test_a_case_is_told():
    assert Case(2, 7, 5, 2, 8, masked=True).told == "2 x 7 x 5, 2 heads of 8, masked"
