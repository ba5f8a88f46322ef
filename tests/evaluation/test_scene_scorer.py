"""The scorer reads pixels: right on truth, wrong on lies, through the noise a model leaves."""

import random

import numpy as np
import pytest
from scipy import ndimage

from lidit_jax.data.scenes import Claim, Group, Scene, SceneSource, render
from lidit_jax.data.scenes.sampling import realize
from lidit_jax.data.scenes.vocabulary import BACKGROUND, COLORS, SHAPES, TEXTURES
from lidit_jax.errors import LiditError
from lidit_jax.evaluation.scene_detector import detect
from lidit_jax.evaluation.scene_prompts import TASKS, ScenePrompt, evaluation_prompts
from lidit_jax.evaluation.scene_scorer import score, score_images

PER_TASK = 25


@pytest.fixture(scope="module")
def prompts() -> list[ScenePrompt]:
    return evaluation_prompts(PER_TASK, seed=11)


@pytest.fixture(scope="module")
def truth(prompts) -> list[Scene]:
    rng = random.Random(0)
    return [realize(prompt.task, prompt.claim, rng) for prompt in prompts]


def clean(image, rng):
    return image


def degraded(image, rng):
    """A little more than a small diffusion model and an autoencoder leave: blur, then noise."""
    scale = image.shape[0] / 64
    blurred = ndimage.gaussian_filter(image.astype(np.float32), (0.8 * scale, 0.8 * scale, 0))
    return np.clip(blurred + rng.normal(0, 12, image.shape), 0, 255).round().astype(np.uint8)


def tinted(image, rng):
    """Colors off by a few levels, brightness by ten percent, blotches in the background."""
    blotches = ndimage.gaussian_filter(rng.normal(0, 1, image.shape), (3, 3, 0))
    shifted = image * rng.uniform(0.9, 1.05) + rng.normal(0, 6, 3) + 6 * blotches / blotches.std()
    return np.clip(shifted, 0, 255).round().astype(np.uint8)


def accuracy(prompts, truth, change, size=64) -> dict[str, float]:
    rng = np.random.default_rng(0)
    verdicts = score_images([change(render(scene, size), rng) for scene in truth], prompts)
    return {
        task: np.mean([v.correct for v, p in zip(verdicts, prompts, strict=True) if p.task == task])
        for task in TASKS
    }


@pytest.mark.parametrize("size", [32, 64, 128])
def test_ground_truth_is_right_at_every_size(prompts, truth, size):
    assert min(accuracy(prompts, truth, clean, size).values()) >= 0.99


@pytest.mark.parametrize("change", [degraded, tinted])
def test_ground_truth_stays_right_under_noise_blur_and_tint(prompts, truth, change):
    scores = accuracy(prompts, truth, change)
    assert np.mean(list(scores.values())) >= 0.99
    assert min(scores.values()) >= 0.95


@pytest.mark.parametrize("change", [clean, degraded])
def test_shuffled_captions_score_at_chance(prompts, truth, change):
    order = random.Random(1).sample(range(len(prompts)), len(prompts))
    shuffled = [prompts[i] for i in order]
    rng = np.random.default_rng(0)
    verdicts = score_images([change(render(scene), rng) for scene in truth], shuffled)
    by_luck = [
        prompt.claim.failure(scene.objects) is None
        for prompt, scene in zip(shuffled, truth, strict=True)
    ]
    assert np.mean([verdict.correct for verdict in verdicts]) <= np.mean(by_luck) + 0.05
    assert np.mean(by_luck) < 0.1


@pytest.mark.parametrize("change", [clean, degraded])
def test_a_scene_with_one_thing_wrong_is_rejected(change):
    circle, square = Group("circle", "red"), Group("square", "blue")
    pair = Claim((circle, square))
    lies = [
        (pair, Claim((Group("circle", "blue"), Group("square", "red")))),
        (pair, Claim((circle,))),
        (pair, Claim((circle, square, Group("star", "green")))),
        (pair, Claim((circle, Group("heart", "blue")))),
        (Claim((Group("star", count=3),)), Claim((Group("star", count=4),))),
        (Claim((circle, square), "left"), Claim((circle, square), "right")),
        (Claim((circle, square), "above"), Claim((circle, square), "left")),
        (Claim((Group("moon", texture="striped"),)), Claim((Group("moon", texture="dotted"),))),
        (Claim((Group("moon", texture="solid"),)), Claim((Group("moon", texture="striped"),))),
        (Claim((Group("cross", size="small"),)), Claim((Group("cross", size="large"),))),
    ]
    rng, noise = random.Random(2), np.random.default_rng(2)
    for wanted, shown in lies:
        for _ in range(5):
            verdict = score(change(render(realize("lie", shown, rng)), noise), wanted)
            assert not verdict.correct
            assert verdict.reason


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_every_color_shape_and_texture_is_told_apart(size):
    rng, noise = random.Random(3), np.random.default_rng(3)
    wrong = []
    for color in COLORS:
        for shape in SHAPES:
            claim = Claim((Group(shape, color, rng.choice(TEXTURES), size),))
            verdict = score(degraded(render(realize("one", claim, rng)), noise), claim)
            wrong += [] if verdict.correct else [verdict.reason]
    assert len(wrong) <= 1, wrong


def test_objects_are_found_where_they_are():
    source, noise = SceneSource(records=60, seed=4), np.random.default_rng(4)
    for index in range(len(source)):
        objects = source.scene(index).objects
        found = detect(degraded(source[index]["image"], noise))
        assert len(found) == len(objects)
        for thing in objects:
            nearest = min(found, key=lambda f: abs(f.x - thing.x) + abs(f.y - thing.y))
            assert abs(nearest.x - thing.x) < 1 / 64
            assert abs(nearest.y - thing.y) < 1 / 64
            assert nearest.radius == pytest.approx(thing.radius, rel=0.12)


def test_specks_are_ignored_but_blobs_are_not():
    claim = Claim((Group("circle", "red"),))
    image = render(realize("one", claim, random.Random(5))).copy()
    assert (image[:14, :12] == BACKGROUND).all()
    image[2:5, 2:5] = COLORS["green"]
    assert score(image, claim).correct
    image[2:12, 2:9] = COLORS["green"]
    assert not score(image, claim).correct


def test_a_shapeless_or_colorless_thing_is_called_so():
    image = np.full((64, 64, 3), BACKGROUND, np.uint8)
    image[30:34, 6:58] = COLORS["red"]
    image[44:60, 20:36] = 60
    bar, box = detect(image)
    assert {bar.shape, box.shape} == {None, "square"}
    assert {bar.color, box.color} == {"red", None}


def test_an_empty_picture_shows_nothing():
    verdict = score(np.full((64, 64, 3), BACKGROUND, np.uint8), Claim((Group("circle"),)))
    assert not verdict.correct
    assert "nothing" in verdict.reason


@pytest.mark.usefixtures("unchecked_types")
def test_images_of_the_wrong_type_and_number_are_refused(prompts):
    with pytest.raises(LiditError, match="uint8"):
        detect(np.zeros((64, 64, 3), np.float32))
    with pytest.raises(LiditError, match="1 images for"):
        score_images([np.zeros((64, 64, 3), np.uint8)], prompts)
