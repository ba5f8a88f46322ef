"""Parts that fail, hang, are killed or come too late cost their row and nothing else."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from lidit_jax.benchmarks.part import PARTS
from lidit_jax.benchmarks.part_runner import (
    LOGS,
    Notes,
    Part,
    PartRunner,
    load_previous_results,
    part_command,
    truncate_output,
)
from lidit_jax.benchmarks.results_page import JSON_FILE, MARKDOWN_FILE

NOTE = "import sys, json, pathlib; note = pathlib.Path(sys.argv[1]).write_text\n"


def part(name, program, *, least=0.0, limit=60.0):
    command = [sys.executable, "-c", NOTE + textwrap.dedent(program), "FACTS"]
    return Part(name, f"The part {name}", command, least, limit)


@pytest.fixture
def runner(tmp_path):
    return PartRunner(tmp_path, 120, {"device": "none"})


def page(folder):
    return json.loads((folder / JSON_FILE).read_text())


def test_what_a_part_leaves_is_on_the_page(runner, tmp_path):
    found = runner.run(part("good", "note(json.dumps({'speed': 7})); print('hello')"))
    assert found == {"speed": 7}
    (row,) = page(tmp_path)["parts"]
    assert (row["status"], row["facts"]) == ("done", {"speed": 7})
    assert "hello" in (tmp_path / LOGS).read_text()
    assert "- speed: 7" in (tmp_path / MARKDOWN_FILE).read_text()


def test_a_failure_costs_one_row_and_says_why(runner, tmp_path):
    runner.run(part("bad", "note(json.dumps({'half': 1})); raise ValueError('no such shape')"))
    runner.run(part("next", "pass"))
    bad, following = page(tmp_path)["parts"]
    assert (bad["status"], bad["error"], bad["facts"]) == ("failed", "exit status 1", {"half": 1})
    assert bad["error_lines"][-1] == "ValueError: no such shape"
    assert following["status"] == "done"
    assert "ValueError: no such shape" in (tmp_path / MARKDOWN_FILE).read_text()


def test_a_part_that_kills_itself_is_named_by_its_signal(runner, tmp_path):
    runner.run(part("killed", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"))
    (row,) = page(tmp_path)["parts"]
    assert (row["status"], row["error"]) == ("failed", "ended by SIGSEGV")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ended(pid):
    """Whether a process ends within some seconds."""
    until = time.monotonic() + 10
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not alive(pid)


def test_a_part_that_hangs_is_killed_with_all_that_it_started(runner, tmp_path):
    hangs = """
        import subprocess, time
        asleep = [sys.executable, "-c", "import time; time.sleep(300)"]
        child = subprocess.Popen(asleep)
        other = subprocess.Popen(asleep, start_new_session=True)
        note(json.dumps({"children": [child.pid, other.pid]}))
        time.sleep(300)
    """
    begun = time.monotonic()
    found = runner.run(part("hangs", hangs, limit=5))
    assert time.monotonic() - begun < 60
    assert [ended(pid) for pid in found["children"]] == [True, True]
    (row,) = page(tmp_path)["parts"]
    assert row["status"] == "killed"
    assert "its limit" in row["error"]


def test_results_are_written_as_they_come(tmp_path):
    """Whoever takes the whole program away finds what its part knew by then."""
    (tmp_path / "out").mkdir()
    program = f"""
        from pathlib import Path
        from lidit_jax.benchmarks.part_runner import Part, PartRunner
        slow = "import sys, time, pathlib\\n"
        slow += "pathlib.Path(sys.argv[1]).write_text('{{\\"early\\": 1}}'); time.sleep(300)"
        runner = PartRunner(Path({str(tmp_path / "out")!r}), 200, {{}})
        runner.run(Part("slow", "Slow", [{sys.executable!r}, "-c", slow, "FACTS"], 0, 200))
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    file, until = tmp_path / "out" / JSON_FILE, time.monotonic() + 60
    while time.monotonic() < until and not (file.exists() and '"early": 1' in file.read_text()):
        time.sleep(0.1)
    assert page(tmp_path / "out")["parts"][0]["status"] == "running"
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    (row,) = page(tmp_path / "out")["parts"]
    assert (row["status"], row["error"]) == ("killed", "stopped by a signal")
    assert row["facts"] == {"early": 1}


def test_the_budget_is_kept(tmp_path):
    runner = PartRunner(tmp_path, 6, {})
    begun = time.monotonic()
    runner.run(part("long", "import time; time.sleep(300)", limit=100))
    runner.run(part("late", "pass", least=20))
    assert time.monotonic() - begun < 30
    long, late = page(tmp_path)["parts"]
    assert (long["status"], late["status"]) == ("killed", "skipped")
    assert late["error"].endswith("it needs at least 20 s")
    runner.extend(60)
    assert 30 < runner.left < 60


ABOUT = {"device": "a GPU", "driver": "1", "versions": {"jax": "0.11.2"}, "tiny": False}


def test_a_second_call_keeps_what_is_done(tmp_path):
    runner = PartRunner(tmp_path, 120, ABOUT)
    runner.run(part("good", "note(json.dumps({'speed': 7}))"))
    runner.run(part("bad", "raise ValueError"))
    for _ in range(2):
        before = load_previous_results(tmp_path)
        runner = PartRunner(tmp_path, 120, ABOUT)
        known = before(runner.page["about"])
        assert list(known) == ["good"]
        runner.keep(known["good"])
        (row,) = page(tmp_path)["parts"]
        assert (row["facts"], row["description"]) == ({"speed": 7}, "measured by an earlier call")
        assert "- measured by an earlier call" in (tmp_path / MARKDOWN_FILE).read_text()


def test_figures_of_another_device_are_not_kept(tmp_path):
    assert load_previous_results(tmp_path)(ABOUT) == {}, "there is no page"
    PartRunner(tmp_path, 120, ABOUT).run(part("good", "pass"))
    before = load_previous_results(tmp_path)
    assert list(before(ABOUT)) == ["good"]
    for name, other in (("device", "a TPU"), ("versions", {}), ("tiny", True)):
        assert before(ABOUT | {name: other}) == {}


def test_a_log_keeps_its_beginning_and_its_end():
    text = b"begin" + b"x" * 1_000_000 + b"end"
    kept = truncate_output(text)
    assert len(kept) < 250_000
    assert kept.startswith(b"begin")
    assert kept.endswith(b"end")
    assert truncate_output(b"short") == b"short"


def test_notes_add_up(tmp_path):
    note = Notes(tmp_path / "facts")
    note({"a": 1, "b": 1})
    note({"b": 2})
    assert json.loads((tmp_path / "facts").read_text()) == {"a": 1, "b": 2}


def test_every_part_has_a_command_that_is_known():
    for name in PARTS:
        *_, given, settings, facts = part_command(name, tiny=True)
        assert (given, json.loads(settings), facts) == (name, {"tiny": True}, "FACTS")
