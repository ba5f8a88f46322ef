"""What the script that runs tests as other machines would runs, and says of failures."""

import os
import platform

import pytest

from tests import other_machines


@pytest.fixture
def runs(monkeypatch):
    """What would be run; the tests of AVX2 on one core fail."""
    seen = []

    def run(mark, environment, cores, rest):
        seen.append((mark, environment, cores, rest))
        failed = cores == 1 and "AVX2" in environment.get("XLA_FLAGS", "")
        return ([3, 1, 0, 0], ["FAILED tests/x.py::test_y"]) if failed else ([4, 0, 0, 0], [])

    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(other_machines, "_run", run)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return seen


def test_a_failure_is_named_with_its_machine_and_shows_in_the_status(runs, capsys):
    assert other_machines.main(["--", "-k", "some"]) == 1
    shown = capsys.readouterr().out
    assert "--- 1 of 10, numeric: as is, 1 core\n" in shown
    assert "--- 10 of 10, output: 300 columns, long folder\n" in shown
    assert "AVX2, 1 core: FAILED tests/x.py::test_y\n" in shown
    rows = [
        line.split() for line in shown.splitlines() if line.startswith("numeric: AVX2, 1 core ")
    ]
    assert [row[-5:-1] for row in rows] == [["3", "1", "0", "0"]]
    assert all(rest == ["-k", "some"] for *_, rest in runs)


def test_every_instruction_set_on_one_core_and_two_and_every_width_and_folder(runs):
    assert other_machines.main(["output"]) == 0
    widths = [(e["COLUMNS"], len(e["TMPDIR"]) > 60) for _, e, _, _ in runs]
    assert widths == [("40", False), ("40", True), ("300", False), ("300", True)]
    assert " " in runs[1][1]["TMPDIR"]
    runs.clear()
    other_machines.main(["numeric"])
    assert [cores for _, _, cores, _ in runs] == [1, 2] * 3
    for (_, environment, cores, _), name in zip(
        runs[2:], ["AVX2"] * 2 + ["SSE4_2"] * 2, strict=True
    ):
        assert f"--xla_cpu_max_isa={name}" in environment["XLA_FLAGS"]
        assert environment["OMP_NUM_THREADS"] == str(cores)


def test_other_processors_have_no_such_instructions(runs, monkeypatch, capsys):
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert other_machines.main(["numeric"]) == 0
    assert len(runs) == 2
    assert "numeric: AVX2 is left out" in capsys.readouterr().out


def test_an_unknown_word_is_refused():
    with pytest.raises(SystemExit, match="'-k': choose of numeric, output"):
        other_machines.main(["-k"])


def test_no_test_at_all_is_a_failure():
    counts, names = other_machines._run(
        "numeric", dict(os.environ), 0, ["-k", "none", "tests/test_mirror.py"]
    )
    assert counts == [0, 0, 0, 0]
    assert [name.partition(":")[0] for name in names] == ["pytest ended with 5"]
