"""Scenes: pure functions of their index, calm pictures, and a held-out split that is exact."""

import random
from collections import Counter
from itertools import combinations

import grain.python as grain
import numpy as np
import pytest

from lidit_jax.data.scenes import Claim, Group, Scene, SceneObject, SceneSource, render
from lidit_jax.data.scenes.held_out import (
    HELD_OUT_PAIRS,
    claim_held_out,
    companions_held_out,
    object_held_out,
    relation_held_out,
    scene_held_out,
)
from lidit_jax.data.scenes.render import bounds
from lidit_jax.data.scenes.sampling import MIXTURE, realize
from lidit_jax.data.scenes.vocabulary import BACKGROUND, COLORS, RELATIONS, SHAPES
from lidit_jax.errors import LiditError

RECORDS = 1500


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scene]]:
    return {
        split: [SceneSource(split, RECORDS).scene(i) for i in range(RECORDS)]
        for split in ("train", "heldout")
    }


def single(**changes) -> Scene:
    values = {"color": "red", "shape": "circle", "texture": "solid", "size": "medium"}
    values |= {"x": 0.5, "y": 0.5, "radius": 10 / 64} | changes
    return Scene("colors", (SceneObject(**values),), Claim((Group(values["shape"]),)))


def test_a_record_is_a_pure_function_of_its_arguments():
    first, again = SceneSource(records=20), SceneSource(records=20)
    for index in (0, 7, 19):
        assert first[index]["caption"] == again[index]["caption"] == first.caption(index)
        np.testing.assert_array_equal(first[index]["image"], again[index]["image"])
        assert first[index]["index"] == index


def test_size_and_language_do_not_change_the_scene_but_seed_and_split_do():
    scene = SceneSource(seed=1).scene(3)
    assert SceneSource(seed=1, size=128, language="zh").scene(3) == scene
    assert SceneSource(seed=2).scene(3) != scene
    assert SceneSource("heldout", seed=1).scene(3) != scene


def test_records_may_share_captions_over_different_pictures():
    source = SceneSource(records=40, captions=16)
    for index in range(24):
        assert source.caption(index) == source.caption(index + 16)
        assert source.scene(index).claim == source.scene(index + 16).claim
        assert source.scene(index).objects != source.scene(index + 16).objects
    assert len({source.caption(index) for index in range(40)}) <= 16


@pytest.mark.parametrize("size", [8, 40, 64, 128])
def test_any_multiple_of_eight_can_be_drawn(size):
    image = SceneSource(size=size)[0]["image"]
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8


def test_sizes_agree_on_the_picture():
    scene = SceneSource().scene(5)
    fine = render(scene, 256).astype(np.float32).reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(fine - render(scene, 64)).mean() < 1.0


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_drawn_in_its_color_at_its_place(shape):
    image = render(single(shape=shape, x=0.4, y=0.6), 128)
    inside = (image != BACKGROUND).any(-1)
    rows, columns = np.nonzero(inside)
    assert tuple(image[0, 0]) == BACKGROUND
    # The center is the center of mass; antialiased rims weigh as much as full pixels here.
    assert abs((columns.mean() + 0.5) / 128 - 0.4) < 0.01
    assert abs((rows.mean() + 0.5) / 128 - 0.6) < 0.01
    assert (image == COLORS["red"]).all(-1).sum() > 0.75 * inside.sum()


def test_textures_keep_the_hue_and_differ():
    pictures = {t: render(single(texture=t)) for t in ("solid", "striped", "dotted")}
    for first, second in combinations(pictures.values(), 2):
        assert (first != second).any(-1).sum() > 40
    dark = pictures["striped"][(pictures["striped"].max(-1) < 110)]
    assert len(dark) > 60
    assert (dark[:, 0] > 2 * dark[:, 1:].max(-1)).all()


def test_objects_never_touch_and_never_leave_the_image(scenes):
    for scene in scenes["train"]:
        boxes = []
        for thing in scene.objects:
            left, top, right, bottom = (thing.radius * side for side in bounds(thing.shape))
            boxes.append((thing.x + left, thing.y + top, thing.x + right, thing.y + bottom))
        assert all(0.02 < side < 0.98 for box in boxes for side in box)
        for a, b in combinations(boxes, 2):
            assert max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3]) > 2.9 / 64


def test_every_scene_fulfils_its_claim(scenes):
    for scene in scenes["train"] + scenes["heldout"]:
        assert scene.claim.failure(scene.objects) is None


def test_tasks_come_in_the_stated_shares(scenes):
    seen = Counter(scene.task for scene in scenes["train"])
    for task, share in MIXTURE.items():
        assert seen[task] / RECORDS == pytest.approx(share, abs=0.035)


def test_training_holds_no_held_out_combination(scenes):
    for scene in scenes["train"]:
        assert not scene_held_out(scene)
        assert not claim_held_out(scene.claim)
        assert not {(thing.color, thing.shape) for thing in scene.objects} & HELD_OUT_PAIRS


def test_every_held_out_scene_holds_a_combination_that_training_lacks(scenes):
    trained = {
        (thing.color, thing.shape, thing.quadrant)
        for scene in scenes["train"]
        for thing in scene.objects
    }
    for scene in scenes["heldout"]:
        combinations_ = {(t.color, t.shape, t.quadrant) for t in scene.objects}
        assert combinations_ - trained
    # All the others do occur, so that the split tests combinations and not missing words.
    assert len(trained) == 224 - 29


def test_held_out_counts_are_the_documented_ones():
    cells = [
        SceneObject(color, shape, "solid", "medium", x, y, 0.15)
        for color in COLORS
        for shape in SHAPES
        for x in (0.3, 0.7)
        for y in (0.3, 0.7)
    ]
    assert sum(map(object_held_out, cells)) == 29
    triples = [(a, r, b) for a in SHAPES for b in SHAPES for r in ("left", "above") if a != b]
    assert sum(relation_held_out(*triple) for triple in triples) == 13
    groups = [Group(shape, color) for shape in SHAPES for color in COLORS]
    pairs = list(combinations(groups, 2))
    share = sum(companions_held_out(*pair) for pair in pairs) / len(pairs)
    assert share == pytest.approx(1 / 8, abs=0.01)
    assert all(companions_held_out(a, b) == companions_held_out(b, a) for a, b in pairs)


def test_a_relation_and_its_converse_are_held_out_together():
    for first, second in combinations(SHAPES, 2):
        assert relation_held_out(first, "left", second) == relation_held_out(second, "right", first)


@pytest.mark.parametrize("relation", RELATIONS)
def test_relations_hold_only_one_way(relation):
    claim = Claim((Group("circle"), Group("square")), relation)
    swapped = Claim(claim.groups[::-1], relation)
    scene = realize("position", claim, random.Random(0))
    assert claim.failure(scene.objects) is None
    assert relation in swapped.failure(scene.objects)


def test_claims_reject_missing_surplus_and_misbound_objects():
    claim = Claim((Group("circle", "red"), Group("square", "blue")))
    red, blue = single().objects[0], single(color="blue", shape="square", x=0.2).objects[0]
    assert claim.failure([blue, red]) is None
    assert "found 1" in claim.failure([red])
    assert "found 3" in claim.failure([red, blue, blue])
    misbound = single(color="blue").objects + single(shape="square", x=0.2).objects
    assert "blue circle, red square" in claim.failure(misbound)


def test_grain_reads_the_source():
    dataset = grain.MapDataset.source(SceneSource(records=12, size=16)).shuffle(seed=0)
    dataset = dataset.map(lambda record: {"image": record["image"], "index": record["index"]})
    batch = dataset.batch(4)[0]
    assert batch["image"].shape == (4, 16, 16, 3)
    assert len(set(batch["index"].tolist())) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"split": "test"}, "train, heldout"),
        ({"language": "fr"}, "en, zh or both"),
        ({"size": 60}, "multiple of 8"),
        ({"records": 0}, "at least one"),
    ],
)
def test_mistakes_are_named(arguments, words):
    with pytest.raises(LiditError, match=words):
        SceneSource(**arguments)


def test_an_index_outside_is_an_index_error():
    with pytest.raises(IndexError):
        SceneSource(records=3)[3]


def test_shares_decide_how_often_a_task_comes():
    only_pairs = tuple(float(task == "two_objects") for task in MIXTURE)
    source = SceneSource("train", 40, shares=only_pairs)
    assert {source.scene(i).task for i in range(40)} == {"two_objects"}


def test_the_usual_shares_keep_the_name_of_prepared_data():
    assert "shares" not in repr(SceneSource("train", 4))
    assert "shares=(1.0," in repr(SceneSource("train", 4, shares=(1.0, *[0.0] * 6)))


@pytest.mark.parametrize("shares", [(1.0, 2.0), (0.0,) * 7, (-1.0, *[1.0] * 6)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(LiditError, match="7 numbers, none negative, for single_object, colors"):
        SceneSource("train", 4, shares=shares)
