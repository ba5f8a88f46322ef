"""From results to the report: what it says, and which results it refuses."""

import json

import pytest
from PIL import Image

from lidit_jax.errors import LiditError
from lidit_jax.evaluation.suites.compbench import CompBench
from lidit_jax.evaluation.suites.dpg import Dpg
from lidit_jax.evaluation.suites.drawing import draw_suite
from lidit_jax.evaluation.suites.geneval import GenEval
from lidit_jax.evaluation.suites.scoring import Expected, score_results
from lidit_jax.evaluation.suites.suite import DrawingPlan
from tests.evaluation.suites import test_compbench, test_dpg, test_geneval
from tests.evaluation.suites.stand_ins import Drawer


@pytest.fixture
def items(geneval_prompts):
    return GenEval().items(geneval_prompts)


@pytest.fixture
def drawn(items, tmp_path):
    """Images of GenEval, two per prompt."""
    draw_suite(
        GenEval(), DrawingPlan(items, None, 2, 0, None, {}), Drawer(), "runs/mine", tmp_path / "o"
    )
    return tmp_path / "o"


@pytest.fixture
def results(items, tmp_path):
    """Every second image of every first prompt is wrong, and all of counting."""
    rows = [
        test_geneval.row(i, s, correct=not (i.task == "counting" or (s and i.place % 2 == 0)))
        for i in items
        for s in range(2)
    ]
    file = tmp_path / "results.jsonl"
    file.write_text("\n".join(rows))
    return file


def test_the_report_has_the_models_row_below_the_papers(items, drawn, results):
    text = score_results(GenEval(), items, results, drawn, Expected())
    lines = text.splitlines()
    assert lines[0] == (
        "GenEval, runs/mine, 2 images per prompt; not comparable with published scores: 12 "
        "prompts, not the 553 of the official set"
    )
    assert "| counting | 0.0000 | 0.0000 to 0.0000 | 2 | 4 |" in lines
    # Of two prompts with 0.5 and 1, a quarter of the resamples has the first alone.
    assert "| colors | 0.7500 | 0.5000 to 1.0000 | 2 | 4 |" in lines
    assert any(line.startswith("| overall | 0.6250 | ") for line in lines)
    header = "| model | single | two | count | colors | position | attribution | overall |"
    table = lines[lines.index(header) :]
    assert table[2] == "| SD v1.5 | 0.97 | 0.38 | 0.35 | 0.76 | 0.04 | 0.06 | 0.43 |"
    assert not any("DALL-E 2" in line for line in table)
    subset = "GenEval: 12 prompts, not the 553 of the official set"
    assert table[-2].startswith(f"| **runs/mine ({subset})** |")
    assert table[-2].endswith("| 0.75 | 0.75 | 0.00 | 0.75 | 0.75 | 0.75 | 0.62 |")
    assert table[-1].startswith("| 95% interval | 0.50 to 1.00 |")
    assert (drawn / "lidit" / "scores.md").read_text() == text
    stored = json.loads((drawn / "lidit" / "scores.json").read_text())
    assert (stored["model"], stored["checkpoint_sha256"]) == ("runs/mine", "cafe" * 16)
    assert stored["mean"]["score"] == stored["table_1"]["overall"]["score"] == 0.625
    assert (stored["prompts"], stored["prompts_scored"], stored["limit"]) == (12, 12, None)
    with Image.open(drawn / "lidit" / "scores.png") as picture:
        assert picture.width > picture.height


def test_a_limit_is_said_in_every_table(items, results, tmp_path):
    first = [line for line in results.read_text().splitlines() if line.count(" 0") == 1]
    results.write_text("\n".join(first))
    expected = Expected(limit=1, images_per_prompt=2, name="other")
    text = score_results(GenEval(), items, results, tmp_path / "new", expected)
    note = "first 1 prompts per task, 6 of 12, 12 prompts, not the 553 of the official set"
    assert text.count(note) == 2
    assert f"**other (GenEval: {note})**" in text


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        (Expected(limit=1), "--limit=1, but .* was drawn with no limit: leave out the option"),
        (Expected(images_per_prompt=4), "--images-per-prompt=4, but .* was drawn with 2"),
    ],
)
def test_options_that_contradict_the_drawing_are_refused(items, drawn, results, expected, message):
    with pytest.raises(LiditError, match=message):
        score_results(GenEval(), items, results, drawn, expected)


def test_another_suite_or_prompt_set_than_drawn_is_refused(
    items, drawn, results, compbench_prompts, tmp_path
):
    with pytest.raises(LiditError, match="was drawn from another set of 12 prompts than"):
        score_results(GenEval(), items[:11], results, drawn, Expected())
    other = CompBench().items(compbench_prompts)
    with pytest.raises(LiditError, match="holds images of geneval, not of compbench"):
        score_results(CompBench(), other, tmp_path, drawn, Expected())


def test_categories_without_results_are_named(compbench_prompts, tmp_path):
    answers = [(i, "0.5000") for i in range(6)]
    test_compbench.write(tmp_path / test_compbench.COLOR, answers)
    items = CompBench().items(compbench_prompts)
    expected = Expected(images_per_prompt=3)
    text = score_results(CompBench(), items, tmp_path, tmp_path, expected)
    assert "| color | 50.00 | 50.00 to 50.00 | 2 | 6 |" in text
    assert "| 3d_spatial | no results |  |  |  |" in text
    assert "| 50.00 | - | - | - |" in text
    assert json.loads((tmp_path / "lidit" / "scores.json").read_text())["mean"] is None


def test_other_suites_of_the_same_model_join_the_table(
    items, drawn, results, dpg_prompts, tmp_path
):
    dpg, out = Dpg(), tmp_path / "dpg-out"
    prompts = dpg.items(dpg_prompts)
    draw_suite(dpg, DrawingPlan(prompts, None, 4, 0, None, {}), Drawer(), "runs/mine", out)
    text = tmp_path / "results.txt"
    text.write_text(test_dpg.text([test_dpg.line(k, s) for k, s in test_dpg.SCORES.items()]))
    score_results(dpg, prompts, text, out, Expected())
    other = out / "lidit" / "scores.json"
    told = score_results(GenEval(), items, results, drawn, Expected(), [other])
    assert "| overall | DPG |" in told
    assert "| PixArt-alpha | 0.98 | 0.50 | 0.44 | 0.80 | 0.08 | 0.07 | 0.48 | 71.11 |" in told
    assert "| 0.62 | 33.33 |" in told
    assert "553 of the official set; DPG-Bench: 3 prompts, not the 1065 of the" in told
    with pytest.raises(LiditError, match="is of DPG-Bench too: name one of another suite"):
        score_results(GenEval(), items, results, drawn, Expected(), [other, other])
    stored = json.loads(other.read_text())
    other.write_text(json.dumps(stored | {"checkpoint_sha256": "beef"}))
    with pytest.raises(LiditError, match=r"--with: .* is of another model"):
        score_results(GenEval(), items, results, drawn, Expected(), [other])
    other.write_text("[]")
    with pytest.raises(LiditError, match=r"--with: .* is no scores.json"):
        score_results(GenEval(), items, results, drawn, Expected(), [other])
    own = drawn / "lidit" / "scores.json"
    with pytest.raises(LiditError, match="is of GenEval too: name one of another suite"):
        score_results(GenEval(), items, results, drawn, Expected(), [own])


def test_models_without_a_record_are_told_apart_by_name(items, results, drawn, tmp_path):
    score_results(GenEval(), items, results, drawn, Expected())
    stored = json.loads((drawn / "lidit" / "scores.json").read_text())
    stored |= {"suite": "dpg", "title": "DPG-Bench", "checkpoint_sha256": None, "model": "mine"}
    other = tmp_path / "scores.json"

    def refused(message, name=None):
        other.write_text(json.dumps(stored))
        named = Expected(images_per_prompt=2, name=name)
        with pytest.raises(LiditError, match=message):
            score_results(GenEval(), items, results, tmp_path / "new", named, [other])

    refused("is of mine: name one of theirs", "theirs")
    refused("may be of another model: score both with --name")
    del stored["checkpoint_sha256"]
    refused("has no 'checkpoint_sha256': score the results of its suite again", "mine")
