"""GenEval: its prompts, the layout that its scorer reads, and the results that it writes."""

import json
from collections import Counter

import pytest

from lidit_jax.errors import LiditError
from lidit_jax.evaluation.suites.geneval import GenEval

SUITE = GenEval()


def row(item, sample, correct=True, **changes):
    values = {"filename": f"/any/{item.place:05d}/samples/{sample:05d}.png", "tag": item.task}
    values |= {"prompt": item.prompt, "correct": correct, "reason": "", "metadata": "{}"}
    return json.dumps(values | changes)


@pytest.fixture
def items(geneval_prompts):
    return SUITE.items(geneval_prompts)


@pytest.fixture
def rows(items):
    """Results of two images: the second of every first prompt of a task is wrong."""
    return [row(i, s, correct=not (s and i.place % 2 == 0)) for i in items for s in range(2)]


def read(tmp_path, items, rows):
    file = tmp_path / "results.jsonl"
    file.write_text("\n".join(rows) + "\n")
    return SUITE.read_results(file, items, 2)


def test_the_official_prompts_are_553_in_six_tasks(official):
    items = SUITE.items(official / "geneval")
    assert len(items) == SUITE.official_prompts
    counts = [("single_object", 80), ("two_object", 99), ("counting", 80)]
    counts += [("colors", 94), ("position", 100), ("color_attr", 100)]
    assert [*Counter(item.task for item in items).items()] == counts
    assert items[0].prompt == "a photo of a bench"
    assert [picture.file for picture in SUITE.pictures(items[552], 4)] == [
        f"00552/samples/000{sample}.png" for sample in range(4)
    ]
    metadata = SUITE.text_files(items, 4)["00000/metadata.jsonl"]
    first = (official / "geneval" / "evaluation_metadata.jsonl").read_text().splitlines()[0]
    assert json.loads(metadata) == json.loads(first)


def test_results_in_any_order_are_those_of_each_prompt(tmp_path, items, rows):
    results = read(tmp_path, items, rows[::-1])
    assert results == {i.key: [1.0, 0.0] if i.place % 2 == 0 else [1.0, 1.0] for i in items}


def test_missing_pictures_are_counted_and_the_first_is_named(tmp_path, items, rows):
    message = "3 of 24 expected images have no result .*first image 1 of 00010/samples/0001.png"
    with pytest.raises(LiditError, match=message):
        read(tmp_path, items, rows[:-3])


def test_a_file_that_is_cut_off_is_refused(tmp_path, items, rows):
    with pytest.raises(LiditError, match="line 24 is not complete JSON"):
        read(tmp_path, items, [*rows[:-1], rows[-1][:40]])


def test_results_of_another_prompt_set_are_counted(tmp_path, items, rows):
    rows[4:6] = [row(items[2], sample, prompt="a photo of a cow") for sample in range(2)]
    with pytest.raises(LiditError, match="2 of 24 are of another prompt set, first 'a photo of a"):
        read(tmp_path, items, rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filename": "out/00000/0000.png"}, "no result of an image LINE/samples/IMAGE.png"),
        ({"correct": None}, "correct None"),
        ({"filename": "00000/samples/00000.png"}, "is a second result of 00000/samples/00000"),
    ],
)
def test_another_layout_is_refused(tmp_path, items, rows, changes, message):
    with pytest.raises(LiditError, match=message):
        read(tmp_path, items, [*rows[:-1], row(items[11], 1, **changes)])


def test_pictures_that_are_not_expected_are_counted(tmp_path, items, rows):
    with pytest.raises(LiditError, match="12 results are of images that are not expected"):
        read(tmp_path, items[:6], rows)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(LiditError, match=r"holds no evaluation_metadata.jsonl: name the folder of"):
        SUITE.items(tmp_path)
    (tmp_path / "evaluation_metadata.jsonl").write_text('{"tag": "shape", "prompt": "a"}')
    with pytest.raises(LiditError, match="line 1 has the unknown tag 'shape'"):
        SUITE.items(tmp_path)
