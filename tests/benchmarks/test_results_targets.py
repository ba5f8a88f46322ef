"""What a page means: figures beside their targets, and what was not measured."""

import pytest

from lidit_jax.benchmarks.results_targets import compare_with_targets

OURS = {"name": "lidit-jax, jit", "relative_time": 1.0, "mfu": 0.46}
THEIRS = {"name": "PyTorch, compile", "relative_time": 1.25, "mfu": 0.37}
LATE = {"name": "PyTorch, compile", "error": "not built within 70 s"}


def part(name, *rows, **facts):
    return {"name": name, "facts": {"rows": list(rows), **facts}}


def test_figures_stand_beside_their_targets():
    table, _ = compare_with_targets(
        [part("step_256", OURS, THEIRS), part("step_1024", OURS, THEIRS)]
    )
    assert table == [
        ["MFU of the train step at 256 px", "46.0%", "at least 45.0%", "reached"],
        ["MFU of the train step at 1024 px", "46.0%", "at least 50.0%", "missed"],
        [
            "its speed relative to torch.compile, 256 px",
            "1.25 times",
            "at least 1.10 times",
            "reached",
        ],
        [
            "its speed relative to torch.compile, 1024 px",
            "1.25 times",
            "at least 1.10 times",
            "reached",
        ],
    ]


@pytest.mark.parametrize(
    ("rows", "mfu", "speed"),
    [
        ([OURS, LATE], "46.0%", "not measured"),
        ([{"name": OURS["name"], "error": "late"}, THEIRS], "not measured", "not measured"),
        ([], "not measured", "not measured"),
    ],
)
def test_a_figure_needs_those_that_it_is_made_of(rows, mfu, speed):
    table, told = compare_with_targets([part("step_256", *rows)])
    assert [row[1] for row in table] == [mfu, speed]
    assert bool(told) == bool(rows)
    assert all("was measured; the errors" in line for line in told)


def test_the_kernels_errors_are_told_by_those_of_plain_products():
    names = ("out", "dq", "dk", "dv")
    row = {"kernel": dict.fromkeys(names, 0.006), "plain": dict.fromkeys(names, 0.004)}
    (line,) = compare_with_targets([part("attention", errors=[row, {"error": "refused"}])])[1]
    assert "as exact as plain matrix products in bfloat16" in line
    assert "at most 1.5 times as large, in 1 cases" in line
    row["kernel"]["dv"] = 0.4
    assert "less exact than" in compare_with_targets([part("attention", errors=[row])])[1][0]


def test_a_page_without_any_of_them_says_nothing():
    assert compare_with_targets([{"name": "device", "facts": {}}, {"name": "doctor"}]) == ([], [])
