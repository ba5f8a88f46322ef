"""Saved scores are found by the weights that drew the images."""

import json
import os

import pytest

from lidit_jax.evaluation.saved_scores import find_scores

HALF = {"accuracy": 0.5, "correct": 2, "n": 4, "low": 0.15, "high": 0.85}
RECORD = {
    "checkpoint_sha256": "ours",
    "sampler": "euler",
    "steps": 8,
    "guidance": 4.0,
    "seed": 0,
    "overall": 0.5,
    "tasks": {"single_object": HALF, "size_binding": HALF},
    "seen": None,
    "held_out": None,
}


def save(folder, seconds, **changes):
    folder.mkdir(parents=True)
    file = folder / "scores.json"
    file.write_text(json.dumps(RECORD | changes))
    os.utime(file, (seconds, seconds))


def test_the_newest_of_the_same_weights_are_found(tmp_path):
    assert find_scores([tmp_path, tmp_path / "none"], "ours") is None
    save(tmp_path / "workdir" / "first", 100, steps=4)
    save(tmp_path / "workdir" / "second", 200)
    save(tmp_path / "runs" / "of-others", 300, checkpoint_sha256="another")
    (tmp_path / "workdir" / "broken").mkdir()
    (tmp_path / "workdir" / "broken" / "scores.json").write_text("{")
    found = find_scores([tmp_path / "workdir", tmp_path / "runs"], "ours")
    assert found.folder == tmp_path / "workdir" / "second"
    assert found.grid.name == "hits_and_misses.png"
    assert find_scores([tmp_path / "workdir"], "unscored") is None


@pytest.mark.parametrize(
    "changes",
    [
        {"tasks": None},
        {"tasks": {"one": {"n": 4}}},
        {"seen": 0.5, "held_out": 0.5},
        {"overall": ""},
    ],
)
def test_files_of_another_program_are_passed_over(changes, tmp_path):
    save(tmp_path / "ours", 1)
    save(tmp_path / "theirs", 2, **changes)
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "scores.json").write_text('{"checkpoint_sha256": "ours"}')
    assert find_scores([tmp_path], "ours").folder == tmp_path / "ours"


def test_their_table_has_settings_and_intervals(tmp_path):
    save(tmp_path / "scores", 1, seen=HALF, held_out=HALF)
    text = find_scores([tmp_path], "ours").markdown()
    assert text.startswith(
        "`lidit eval scenes`, 8 images, 8 steps of `euler`, guidance 4.0, seed 0"
    )
    assert "| single object | 2 | 4 | 50% | 15% to 85% |" in text
    assert "| size binding (not in the mean) | 2 | 4 | 50% | 15% to 85% |" in text
    assert "| held-out combinations | 2 | 4 | 50% | 15% to 85% |" in text
    assert "| | | **50%** | |" in text
