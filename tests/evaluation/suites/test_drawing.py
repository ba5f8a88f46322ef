"""Drawing of suites: layouts, seeds, what continues, what is shared, and what is refused."""

import errno
import json
import os
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lidit_jax.errors import LiditError
from lidit_jax.evaluation.suites import drawing, drawing_record
from lidit_jax.evaluation.suites.compbench import CompBench
from lidit_jax.evaluation.suites.dpg import Dpg
from lidit_jax.evaluation.suites.drawing import draw_suite
from lidit_jax.evaluation.suites.drawing_record import read_record
from lidit_jax.evaluation.suites.geneval import GenEval
from lidit_jax.evaluation.suites.own_prompts import OwnPrompts
from lidit_jax.evaluation.suites.suite import DrawingPlan, sample_seed
from lidit_jax.io.paths import to_path
from lidit_jax.sampling import png_metadata
from tests.evaluation.suites.stand_ins import Drawer, plain
from tests.stores import gcs_store

GENEVAL = GenEval()


@pytest.fixture
def plan(geneval_prompts):
    """Twelve prompts of GenEval, four images each."""
    return DrawingPlan(GENEVAL.items(geneval_prompts), None, 4, 0, None, {"steps": 3})


def draw(out, plan, drawer=None, suite=GENEVAL):
    drawer = drawer or Drawer()
    record = draw_suite(suite, plan, drawer, "runs/mine", out, patience=0.3)
    return drawer, record


def pictures(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.png"))}


def pixels(file):
    with Image.open(file) as image:
        return np.asarray(image)


def test_every_sample_is_drawn_from_its_own_seed_and_says_so(plan, tmp_path):
    out = tmp_path / "out"
    drawer, record = draw(out, plan)
    assert len(pictures(out)) == len(drawer.drawn) == len({seed for _, seed in drawer.drawn}) == 48
    for item in plan.items:
        folder = out / item.key
        assert json.loads((folder / "metadata.jsonl").read_text())["prompt"] == item.prompt
        for sample in range(4):
            file = folder / "samples" / f"{sample:04d}.png"
            seed = sample_seed(0, "geneval", item.key, sample)
            assert np.array_equal(pixels(file), plain(seed))
            told = png_metadata.read(file)
            assert (told.request["prompt"], told.request["seed"]) == (item.prompt, seed)
            assert (told.settings["steps"], told.fingerprint) == (3, drawer.fingerprint)
    assert record == read_record(out)
    assert (record.prompts, record.limit, record.settings["steps"]) == (12, None, 3)


def test_a_sample_does_not_depend_on_what_else_is_drawn(plan, tmp_path):
    draw(tmp_path / "all", plan)
    draw(tmp_path / "few", replace(plan, limit=1, images_per_prompt=3))
    few, everything = pictures(tmp_path / "few"), pictures(tmp_path / "all")
    assert len(few) == 18
    assert few.items() <= everything.items()


def test_what_was_drawn_is_kept_and_the_rest_is_drawn(plan, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        draw(out, plan, Drawer(stop_after=16))
    before = pictures(out)
    assert len(before) == 16
    (out / "00001/samples/0002.png").unlink()
    # A copy that was cut off.
    (out / "00002/samples/0000.png").write_bytes(before["00002/samples/0000.png"][:-4])
    drawer, _ = draw(out, plan)
    assert len(drawer.drawn) == 48 - 16 + 2
    draw(tmp_path / "at once", plan)
    assert pictures(out) == pictures(tmp_path / "at once")
    drawer, _ = draw(out, plan)
    assert drawer.drawn == []


def test_launches_at_the_same_time_divide_the_work(plan, tmp_path):
    out = tmp_path / "out"
    drawers = [Drawer(), Drawer()]
    threads = [threading.Thread(target=draw, args=(out, plan, drawer)) for drawer in drawers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drawn = Counter(drawers[0].drawn + drawers[1].drawn)
    assert len(drawn) == len(pictures(out)) == 48
    assert set(drawn.values()) == {1}
    assert [*(out / "lidit" / "claims").iterdir()] == []


def test_a_larger_limit_adds_pictures(plan, tmp_path):
    out = tmp_path / "out"
    _, record = draw(out, replace(plan, limit=1))
    assert (record.limit, record.drawn_prompts, record.prompts) == (1, 6, 12)
    drawer, record = draw(out, plan)
    assert len(drawer.drawn) == 24
    assert (record.limit, record.drawn_prompts) == (None, 12)
    drawer, record = draw(out, replace(plan, limit=1))
    assert drawer.drawn == []
    assert record.limit is None


@pytest.mark.parametrize(
    ("changes", "drawer", "name"),
    [
        ({}, Drawer("beef" * 16), r"checkpoint_sha256 \(cafe[cafe]+…, not beef[bef]+…\)"),
        ({"seed": 1}, None, r"seed \(0, not 1\)"),
        ({"images_per_prompt": 1}, None, r"images_per_prompt \(4, not 1\)"),
        ({"size": (8, 16)}, None, r"size \(\(64, 64\), not \(8, 16\)\)"),
        ({"settings": {"steps": 4}}, None, r"steps \(3, not 4\)"),
        ({"settings": {"steps": 3, "guidance": 7.0}}, None, r"guidance \(2.5, not 7.0\)"),
    ],
)
def test_a_folder_of_other_pictures_is_refused_by_name(plan, tmp_path, changes, drawer, name):
    out = tmp_path / "out"
    draw(out, replace(plan, limit=1))
    before = pictures(out)
    with pytest.raises(LiditError, match=f"holds images of another {name}: name another folder"):
        draw(out, replace(plan, **changes), drawer)
    assert pictures(out) == before


def test_a_folder_of_another_prompt_set_or_of_anything_else_is_refused(plan, tmp_path):
    out = tmp_path / "out"
    draw(out, replace(plan, limit=1))
    other = [replace(plan.items[0], prompt="a photo of a cat"), *plan.items[1:]]
    with pytest.raises(LiditError, match="holds images of another prompts_sha256"):
        draw(out, replace(plan, items=other))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cat.png").write_bytes(b"")
    with pytest.raises(LiditError, match=r"holds 1 files without a record .* first 'cat.png'"):
        draw(tmp_path / "mine", plan)


def test_a_damaged_record_is_refused(plan, tmp_path):
    (tmp_path / "lidit").mkdir()
    (tmp_path / "lidit" / "drawing.json").write_text('{"suite": "geneval"}')
    with pytest.raises(LiditError, match="is not a record of this version"):
        draw(tmp_path, plan)
    (tmp_path / "lidit" / "drawing.json").write_text('{"suite": "gen')
    with pytest.raises(LiditError, match="is not complete JSON"):
        draw(tmp_path, plan)


def test_what_every_batch_would_repeat_is_told_at_once(plan, tmp_path):
    drawer = Drawer()
    drawer.fails = True
    with pytest.raises(LiditError, match=r"^cannot draw into .*: images of 8x8 pixels do not fit"):
        draw(tmp_path / "out", plan, drawer)
    assert drawer.calls <= 2, "as many batches as are taken at once"


def test_pictures_are_drawn_into_a_bucket_and_continued(plan):
    with gcs_store() as store:
        out = to_path("gs://bucket/out")
        few = replace(plan, images_per_prompt=1, limit=1)
        draw(out, few)
        names = store.names("bucket", "out/")
        assert "out/00010/samples/0000.png" in names
        assert len([name for name in names if name.endswith(".png")]) == 6
        (out / "00010/samples/0000.png").unlink()
        drawer, _ = draw(out, few)
        assert len(drawer.drawn) == 1
        assert store.names("bucket", "out/") == names
        with pytest.raises(LiditError, match="holds images of another seed"):
            draw(out, replace(few, seed=1))


def test_prompts_that_are_too_long_are_counted_before_anything_is_drawn(plan, tmp_path):
    long = [replace(item, prompt="word " * 30) for item in plan.items[:2]]
    with pytest.raises(LiditError, match="2 of 12 prompts do not fit this checkpoint: the prompt"):
        draw(tmp_path / "out", replace(plan, items=[*long, *plan.items[2:]]))
    assert not (tmp_path / "out").exists()


def test_a_picture_of_dpg_is_a_grid_of_four_in_the_order_of_reading(dpg_prompts, tmp_path):
    items = Dpg().items(dpg_prompts)
    draw(tmp_path / "out", DrawingPlan(items, None, 4, 5, None, {}), suite=Dpg())
    assert sorted(pictures(tmp_path / "out")) == ["10.png", "2.png", "COCO3.png"]
    grid = pixels(tmp_path / "out" / "10.png")
    tiles = [grid[:8, :8], grid[:8, 8:], grid[8:, :8], grid[8:, 8:]]
    for sample, tile in enumerate(tiles):
        assert np.array_equal(tile, plain(sample_seed(5, "dpg", "10", sample)))


def test_pictures_of_compbench_are_named_by_prompt_and_number(compbench_prompts, tmp_path):
    items = CompBench().items(compbench_prompts)
    draw(tmp_path / "out", DrawingPlan(items, 1, 10, 0, None, {}), suite=CompBench())
    names = sorted(path.name for path in (tmp_path / "out" / "shape" / "samples").iterdir())
    assert names == [f"one shape._{number:06d}.png" for number in range(10)]
    assert len(pictures(tmp_path / "out")) == 80


def test_own_prompts_have_a_listing_that_a_larger_limit_extends(tmp_path):
    file, out = tmp_path / "prompts.txt", tmp_path / "out"
    file.write_text("a red circle\ntwo stars\n")
    plan = DrawingPlan(OwnPrompts().items(file), 1, 2, 0, None, {})
    draw(out, plan, suite=OwnPrompts())
    assert len((out / "images.jsonl").read_text().splitlines()) == 2
    draw(out, replace(plan, limit=None), suite=OwnPrompts())
    rows = [json.loads(line) for line in (out / "images.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == [*pictures(out)]


def test_a_killed_write_leaves_nothing_beside_the_images(compbench_prompts, tmp_path, monkeypatch):
    """Official scorers read every file there."""
    (compbench_prompts / "color_val.txt").write_text("c" * 240)  # the longest for a name
    plan, out = DrawingPlan(CompBench().items(compbench_prompts), 1, 1, 0, None, {}), tmp_path / "o"
    temporaries = []

    def replace_file(temporary, path):
        temporaries.append(temporary)
        return os.replace(temporary, path)

    monkeypatch.setattr(Path, "replace", replace_file)
    draw(out, plan, suite=CompBench())
    assert len(pictures(out)) == 8
    assert len(temporaries) > 8
    assert all(out / "lidit" in temporary.parents for temporary in temporaries)


def test_a_cut_off_image_that_another_launch_has_deleted_is_drawn_again(
    plan, tmp_path, monkeypatch
):
    out, few = tmp_path / "out", replace(plan, limit=1)
    draw(out, few)
    gone = "00000/samples/0000.png"
    there = drawing._listed(out)
    (out / gone).unlink()
    monkeypatch.setattr(drawing, "_listed", lambda _: set(there))
    drawer, _ = draw(out, few)
    assert len(drawer.drawn) == 1
    assert (out / gone).exists()


def test_a_folder_that_cannot_be_written_to_is_told_in_one_line(plan, tmp_path, monkeypatch):
    def full(path, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(LiditError, match=r"^cannot draw into .* No space left on device"):
        draw(tmp_path / "out", plan)


def test_a_launch_that_begins_between_two_looks_is_no_stranger(plan, tmp_path, monkeypatch):
    out, few = tmp_path / "out", replace(plan, limit=1)
    _, record = draw(out, few)
    early = iter([None])
    monkeypatch.setattr(drawing_record, "read_record", lambda at: next(early, read_record(at)))
    drawer, again = draw(out, few)
    assert (drawer.drawn, again) == ([], record)
