"""`lidit bench all`: what it refuses, and what it does with its parts."""

import json

import pytest

from lidit_jax.benchmarks import parts
from lidit_jax.benchmarks.part_runner import Part
from lidit_jax.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name its folder with --out=DIR"),
        (["--out=here", "--then-train=nothing"], "no recipe 'nothing'"),
        (["--out=here", "--config.seed=1"], "is for --then-train=RECIPE"),
        (["--out=here", "--minutes=0"], "'0' is not minutes from 0.1 to 1440"),
    ],
)
def test_mistakes_are_named_before_anything_starts(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "all", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_failed_part_is_the_exit_status(tmp_path, monkeypatch):
    good, bad = (Part(word, word, [word], 0, 20) for word in ("true", "false"))
    monkeypatch.setattr(parts, "device_part", lambda **_: good)
    monkeypatch.setattr(parts, "ordered_parts", lambda *_, **__: [bad, good])
    assert main(["bench", "all", f"--out={tmp_path / 'out'}", "--minutes=1"]) == 1
    page = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["status"] for row in page["parts"]] == ["done", "failed", "done"]
    assert main(["bench", "all", f"--out={tmp_path / 'out'}", "--minutes=1", "--only=true"]) == 0


def test_a_second_call_goes_on_where_the_first_ended(tmp_path, monkeypatch):
    """Parts that are done are kept; --only measures those that it names again."""
    out = tmp_path / "out"
    count = tmp_path / "count"
    one = Part("one", "One", ["sh", "-c", f"echo >> {count}"], 0, 20)
    two = Part("two", "Two", ["test", "-e", str(tmp_path / "there")], 0, 20)
    monkeypatch.setattr(parts, "device_part", lambda **_: Part("device", "D", ["true"], 0, 20))
    monkeypatch.setattr(parts, "ordered_parts", lambda *_, **__: [one, two])
    call = ["bench", "all", f"--out={out}", "--minutes=1"]
    assert main(call) == 1
    (tmp_path / "there").touch()
    assert main(call) == 0
    page = json.loads((out / "results.json").read_text())
    assert [row["status"] for row in page["parts"]] == ["done"] * 3
    assert count.read_text() == "\n"
    assert main([*call, "--only=one"]) == 0
    assert count.read_text() == "\n\n"
    page = json.loads((out / "results.json").read_text())
    assert [row["name"] for row in page["parts"]] == ["device", "one", "two"]
