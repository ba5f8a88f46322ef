"""T2I-CompBench: its prompts, names of images, and the answers of its scorers."""

import json

import pytest

from lidit_jax.errors import LiditError
from lidit_jax.evaluation.suites.compbench import CompBench

SUITE = CompBench()
COLOR = "color/annotation_blip/vqa_result.json"
SPATIAL = "spatial/labels/annotation_obj_detection_2d/vqa_result.json"


@pytest.fixture
def items(compbench_prompts):
    return SUITE.items(compbench_prompts)


@pytest.fixture
def scored(tmp_path):
    """Answers for three images per prompt; BLIP writes texts, UniDet numbers and any order."""
    write(tmp_path / COLOR, [(i, f"{i / 10:.4f}") for i in range(6)])
    write(tmp_path / SPATIAL, [(i, 0.25 * (i % 3)) for i in reversed(range(6))])
    return tmp_path


def write(file, answers):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([{"question_id": i, "answer": a} for i, a in answers]))


def test_the_official_prompts_are_300_in_each_of_eight_categories(official):
    items = SUITE.items(official / "t2i_compbench")
    assert len(items) == SUITE.official_prompts
    assert all(sum(item.task == task.name for item in items) == 300 for task in SUITE.tasks)
    assert items[0].prompt == "a green bench and a blue bowl"
    files = [picture.file for item in items for picture in SUITE.pictures(item, 10)]
    assert files[0] == "color/samples/a green bench and a blue bowl_000000.png"
    assert len(set(files)) == 24_000
    # The scorers cut at the underscore and number the images of a category.
    for number, file in enumerate(files[:3000]):
        prompt, end = file.removeprefix("color/samples/").split("_")
        assert (prompt, end) == (items[number // 10].prompt, f"{number:06d}.png")


def test_answers_are_those_of_the_numbers_in_the_names(items, scored):
    assert SUITE.read_results(scored, items, 3) == {
        "color/00000": [0.0, 0.1, 0.2],
        "color/00001": [0.3, 0.4, 0.5],
        "spatial/00000": [0.0, 0.25, 0.5],
        "spatial/00001": [0.0, 0.25, 0.5],
    }


def test_missing_answers_are_counted_per_category(items, scored):
    write(scored / SPATIAL, [(i, 0.5) for i in range(4)])
    message = "spatial.*2 of 6 expected images have no result .*spatial/samples/two spatials._0000"
    with pytest.raises(LiditError, match=message):
        SUITE.read_results(scored, items, 3)


def test_answers_of_other_numbers_of_pictures_are_refused(items, scored):
    write(scored / COLOR, [(i, 0.5) for i in range(20)])
    with pytest.raises(LiditError, match="14 results are of images that are not expected"):
        SUITE.read_results(scored, items, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"question_id": 0, "answer": "0.1', "is not complete JSON"),
        ("{}", "is not a list of answers"),
        ('[{"question_id": 0, "answer": "yes"}]', "is not a question_id with a number as answer"),
        ('[{"question_id": 0}]', "is not a question_id with a number as answer"),
        ('[{"question_id": 0, "answer": 0}, {"question_id": 0, "answer": 1}]', "0 twice"),
    ],
)
def test_damaged_answers_are_refused(items, scored, text, message):
    (scored / COLOR).write_text(text)
    with pytest.raises(LiditError, match=message):
        SUITE.read_results(scored, items, 3)


def test_a_score_outside_of_its_range_is_refused(items, scored):
    write(scored / COLOR, [(i, 69.0) for i in range(6)])
    with pytest.raises(LiditError, match=r"the score of image 0 of 'color/00000' is 69.0"):
        SUITE.read_results(scored, items, 3)


def test_pictures_of_other_prompts_beside_the_answers_are_found(items, scored):
    samples = scored / "color" / "samples"
    samples.mkdir()
    for item in items[:2]:
        for picture in SUITE.pictures(item, 3):
            (scored / picture.file).write_bytes(b"")
    SUITE.read_results(scored, items, 3)
    (samples / "one color._000000.png").rename(samples / "a cat_000000.png")
    with pytest.raises(LiditError, match="1 of 6 are of another prompt set, first a cat_000000"):
        SUITE.read_results(scored, items, 3)


def test_a_folder_without_results_is_refused(items, tmp_path):
    with pytest.raises(LiditError, match="holds no result of any category, such as color/annotat"):
        SUITE.read_results(tmp_path, items, 3)


@pytest.mark.parametrize("prompt", ["a_cat", "a cat/dog", "é" * 121])
def test_prompts_that_a_file_name_cannot_carry_are_refused(compbench_prompts, prompt):
    (compbench_prompts / "shape_val.txt").write_text(f"{prompt}\n")
    with pytest.raises(LiditError, match=r"shape_val.txt: line 1: the scorer reads prompts from"):
        SUITE.items(compbench_prompts)


def test_every_category_has_commands_that_run_in_the_official_repository():
    commands = SUITE.scorer_commands("/my runs/o", 512, 10)
    assert commands[0] == "(cd BLIPvqa_eval && python BLIP_vqa.py --out_dir='/my runs/o/color')"
    unidet = [line.split("python ")[1] for line in commands if line.startswith("(cd UniDet_eval")]
    assert unidet == [
        "2D_spatial_eval.py --outpath='/my runs/o/spatial')",
        "3D_spatial_eval.py --outpath='/my runs/o/3d_spatial')",
        "numeracy_eval.py --outpath='/my runs/o/numeracy')",
        "2D_spatial_eval.py --outpath='/my runs/o/complex' --complex=True)",
    ]
    assert commands[-1] == "(cd 3_in_1_eval && python 3_in_1.py --outpath='/my runs/o/complex')"
