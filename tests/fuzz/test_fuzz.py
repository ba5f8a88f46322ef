"""A hundred random cases of `python -m tests.fuzz`, and what longer runs have found."""

import pytest

from tests.fuzz.__main__ import for_each_case
from tests.fuzz.cases import MODEL, RECIPE, Case
from tests.fuzz.judge import run_here
from tests.fuzz.stand_ins import quick_parts, save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIDIT_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        model = save_model(folder)
        with quick_parts(model):
            yield model


def test_random_cases_end_with_a_picture_or_in_one_line(model):
    faults = []

    def body(case):
        outcome = run_here(case, model)
        if outcome.fault:
            faults.append((outcome.fault, case, outcome.details))

    for_each_case(100, 0, body)
    assert faults == []


_LONG = "é" * 300
_FOLDER = ("--config.data.source=folder", "--config.data.path=pictures")
FOUND = {
    "a null character in a path": Case(("export", f"--checkpoint={MODEL}", "--out=a\0")),
    "and in a recipe's": Case(
        ("train", f"--config={RECIPE}", "--workdir=run", *_FOLDER, "--config.data.path='a\\0'")
    ),
    "half a character in a recipe's": Case(
        ("train", f"--config={RECIPE}", "--workdir=run", "--config.data.cache_dir='\\ud83d'")
    ),
    "a name longer than disks take": Case(("convert", "from-torch", _LONG, "out")),
    "and in a recipe's name": Case(("plan", f"--config={_LONG}", "--topology=v5e:4x4")),
    "and in a folder's": Case(
        (
            "train",
            f"--config={RECIPE}",
            "--workdir=run",
            *_FOLDER,
            f"--config.data.path={_LONG}",
        )
    ),
    "a name of bytes that are no text": Case(
        ("sample", f"--checkpoint={MODEL}", "--prompt=a", "--out=\udcff.png")
    ),
}


@pytest.mark.parametrize("case", FOUND.values(), ids=FOUND.keys())
def test_what_was_found_stays_mended(case, model):
    outcome = run_here(case, model)
    assert outcome.fault == "", outcome.details
