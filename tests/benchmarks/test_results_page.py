"""The page for people shows every figure with its spread, and what failed with its reason."""

import json

import pytest

from lidit_jax.benchmarks.results_page import JSON_FILE, MARKDOWN_FILE, markdown, write_page

TIMES = {"median_seconds": 0.1, "fastest_round_seconds": 0.09, "slowest_round_seconds": 0.12}
OURS = TIMES | {"name": "lidit-jax, jit", "items_per_second": 640.0, "flops_per_second": 5e14}
OURS |= {"mfu": 0.5, "relative_time": 1.0, "first_seconds": 21.0, "peak_bytes": 2**35}
THEIRS = {"name": "PyTorch, compile", "error": "CUDA out of memory", "error_lines": ["a", "b"]}
PLAN = {
    "topology": "h100:1x1",
    "seconds": {"predicted": 0.08, "measured": 0.1},
    "bytes": {"predicted": 2**34, "measured": 2**35},
    "mfu": {"predicted": None, "measured": 0.5},
}
ERRORS = dict.fromkeys(("out", "dq", "dk", "dv"), 0.004)
PAGE = {
    "about": {"device": "NVIDIA H100", "versions": {"jax": "0.11.2"}},
    "parts": [
        {
            "name": "step_256",
            "title": "Train step",
            "status": "done",
            "seconds": 50.0,
            "description": "7 of 28 blocks",
            "facts": {"rows": [OURS, THEIRS], "plan": PLAN, "settings": "{}"},
        },
        {
            "name": "attention",
            "title": "Attention",
            "status": "killed",
            "error": "its | limit",
            "error_lines": ["the last words"],
            "facts": {
                "errors": [
                    {"case": "2 x 3", "kernel": ERRORS, "plain": ERRORS},
                    {"case": "2 x 5", "error": "no such shape"},
                ],
                "times": [
                    TIMES
                    | {"case": "2 x 3", "who": "kernel", "backward": True}
                    | {"flops_per_second": 4e14, "mfu": None}
                ],
            },
        },
        {"name": "late", "title": "Late", "status": "skipped", "error": "2 s were left"},
    ],
}


@pytest.mark.parametrize(
    "line",
    [
        "| device | NVIDIA H100 |",
        "| versions | jax 0.11.2 |",
        "| Train step | done | 50.0 |  |",
        "| Attention | killed |  | its / limit |",
        "| Late | skipped |  | 2 s were left |",
        "- 7 of 28 blocks",
        "## Summary",
        "| MFU of the train step at 256 px | 50.0% | at least 45.0% | reached |",
        "| lidit-jax, jit | 0.1 | 0.09..0.12 | 640 | 500 | 50.0% | 1 |  | 21 | 32 |",
        "PyTorch, compile failed: CUDA out of memory",
        "| step, s | 0.08 | 0.1 | 1.25 |",
        "| peak memory, GiB | 16 | 32 | 2.00 |",
        "| MFU |  | 50.0% |  |",
        "| 2 x 3 | 0.40% | 0.40% | 0.40% | 0.40% | 0.40% | 0.40% | 0.40% | 0.40% |",
        "| 2 x 3 | both | kernel | 0.1 | 0.09..0.12 | 400 |  |",
        "the last words",
    ],
)
def test_a_line_of_the_page(line):
    assert line in markdown(PAGE).splitlines()


def test_a_figure_that_cannot_be_shown_ends_nothing(tmp_path):
    broken = {"about": {}, "parts": [PAGE["parts"][0] | {"facts": {"rows": [{}]}}]}
    write_page(tmp_path, broken)
    assert json.loads((tmp_path / JSON_FILE).read_text()) == broken
    assert "results.json has all figures" in (tmp_path / MARKDOWN_FILE).read_text()
