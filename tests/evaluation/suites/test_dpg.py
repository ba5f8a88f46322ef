"""DPG-Bench: its prompts, grids of four, and the text that its scorer writes."""

import pytest

from lidit_jax.errors import LiditError
from lidit_jax.evaluation.suites.dpg import Dpg

SUITE = Dpg()
SCORES = {"2": (1.0, 0.5, 0.5, 1.0), "10": (0.0, 0.0, 0.0, 0.0), "COCO3": (0.5, 0.25, 0.25, 0.0)}


def line(key, scores):
    return ", ".join([f"/pictures, of today/{key}.png", *map(str, scores), str(sum(scores) / 4)])


def text(lines, score=100 * (0.75 + 0.0 + 0.25) / 3):
    summary = ["Model: m", "L1 category scores:", "\tentity: 80.0", "Save results to: a.txt"]
    return "\n".join([*lines, *summary, f"DPG-Bench score: {score}", ""])


@pytest.fixture
def items(dpg_prompts):
    return SUITE.items(dpg_prompts)


@pytest.fixture
def lines():
    return [line(key, SCORES[key]) for key in ("COCO3", "2", "10")]


def read(tmp_path, items, content):
    file = tmp_path / "results.txt"
    file.write_text(content)
    return SUITE.read_results(file, items, 4)


def test_the_official_prompts_are_1065(official):
    items = SUITE.items(official / "dpg_bench")
    assert len(items) == SUITE.official_prompts
    assert items[0].prompt.startswith("An expansive field, blanketed by the soft light of morning")
    assert [picture.file for picture in SUITE.pictures(items[0], 4)] == ["0.png"]


def test_prompts_of_the_official_repository_are_one_file_each(items):
    assert [item.key for item in items] == ["2", "10", "COCO3"]
    assert items[0].prompt == "A long prompt, number 2."


def test_a_picture_is_a_grid_of_four_or_one_sample(items):
    assert [p.samples for p in SUITE.pictures(items[0], 4)] == [(0, 1, 2, 3)]
    assert [p.samples for p in SUITE.pictures(items[0], 1)] == [(0,)]
    with pytest.raises(LiditError, match="--images-per-prompt=3: DPG-Bench reads grids of 4"):
        SUITE.pictures(items[0], 3)


def test_results_are_the_scores_of_the_four_tiles(tmp_path, items, lines):
    assert read(tmp_path, items, text(lines)) == {key: [*scores] for key, scores in SCORES.items()}


def test_results_without_the_summary_are_cut_off(tmp_path, items, lines):
    with pytest.raises(LiditError, match="has no line 'DPG-Bench score:' at its end: it is cut"):
        read(tmp_path, items, "\n".join(lines))


def test_missing_pictures_are_counted_by_samples(tmp_path, items, lines):
    message = "4 of 12 expected images have no result .*first image 0 of 10.png"
    with pytest.raises(LiditError, match=message):
        read(tmp_path, items, text(lines[:2]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("/pictures/10.png, 0.0, 0.0, 0.0", "has 2 scores for the 4 images of 10"),
        ("/pictures/10.png, 0.0, 0.", "has 1 scores for the 4 images of 10"),
        ("/pictures/10.png, 0.0, 0.0, 0.0, 0.0, 0.5", "0.5 is not the mean of its scores"),
        ("/pictures/10.png, 0.0, a", "'0.0, a' is not a list of scores"),
        ("/pictures/2.png, 0.0, 0.0, 0.0, 0.0, 0.0", "is a second result of 2"),
        ("/pictures/11.png, 0.0, 0.0, 0.0, 0.0, 0.0", "4 of 12 expected images have no result"),
    ],
)
def test_damaged_lines_are_refused(tmp_path, items, lines, changed, message):
    with pytest.raises(LiditError, match=message):
        read(tmp_path, items, text([*lines[:2], changed]))


def test_the_stated_score_is_that_of_the_lines(tmp_path, items, lines):
    with pytest.raises(LiditError, match=r"states a score of 41.5, but its lines average 33.3"):
        read(tmp_path, items, text(lines, 41.5))


def test_names_that_are_no_file_names_are_refused(tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"item_id": "../a", "prompt": "a"}')
    with pytest.raises(LiditError, match=r"'../a' is not a name of letters and digits"):
        SUITE.items(tmp_path)
