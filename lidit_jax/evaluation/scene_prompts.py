"""Prompts of the scenes benchmark, each with the claim that an image must satisfy."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from lidit_jax.data.scenes.captions import caption
from lidit_jax.data.scenes.held_out import claim_held_out
from lidit_jax.data.scenes.sampling import draw_different
from lidit_jax.data.scenes.scene import Claim, Group
from lidit_jax.data.scenes.vocabulary import COLORS, COUNTS, RELATIONS, SHAPES, SIZES, TEXTURES
from lidit_jax.errors import LiditError
from lidit_jax.sampling.memory import check_count

_ATTEMPTS = 400


@dataclass(frozen=True)
class ScenePrompt:
    """One prompt of the benchmark."""

    task: str
    prompt: str
    claim: Claim
    held_out: bool
    """Whether the prompt contains a combination that no training caption has
    (`lidit_jax.data.scenes.held_out`)."""


def evaluation_prompts(
    per_task: int = 50, seed: int = 0, language: str = "en"
) -> list[ScenePrompt]:
    """Return prompts for six tasks named as in GenEval (arXiv 2310.11513), two bindings, and sizes.

    Half of the prompts of `HELD_OUT_TASKS` contain a combination held out from training; the other
    tasks have too few combinations to hold any out. Prompts repeat only if a task has fewer than
    `per_task`.

    Args:
      per_task: prompts per task.
      seed: seed of the prompts.
      language: "en" or "zh".

    Returns:
      `len(TASKS) * per_task` prompts, task after task.

    Raises:
      LiditError: when `per_task` is not positive or far too large, or the language is unknown.
    """
    if per_task <= 0:
        raise LiditError(f"{per_task} prompts per task: give at least 1")
    check_count(len(TASKS) * per_task)
    prompts = []
    for task in TASKS:
        rng = random.Random(f"prompts/{seed}/{_SEED_NAMES.get(task, task)}")
        used: set[str] = set()
        for i in range(per_task):
            prompts.append(_draw(task, task in HELD_OUT_TASKS and i % 2 == 0, used, rng, language))
            used.add(prompts[-1].prompt)
    return prompts


def _draw(
    task: str, held_out: bool, used: set[str], rng: random.Random, language: str
) -> ScenePrompt:
    """Draw a prompt, if possible one that is not in `used`."""
    found = None
    for _ in range(_ATTEMPTS):
        claim = TASKS[task](rng)
        if claim_held_out(claim) == held_out:
            found = ScenePrompt(task, caption(claim, rng, language), claim, held_out)
            if found.prompt not in used:
                break
    if found is None:
        raise LiditError(f"no prompt of the task {task} was found: try another seed")
    return found


def _single_object(rng: random.Random) -> Claim:
    return Claim((Group(rng.choice(SHAPES)),))


def _two_objects(rng: random.Random) -> Claim:
    return Claim(draw_different(rng, 2, colored=False))


def _counting(rng: random.Random) -> Claim:
    return Claim((Group(rng.choice(SHAPES), count=rng.choice(COUNTS)),))


def _colors(rng: random.Random) -> Claim:
    return Claim((Group(rng.choice(SHAPES), rng.choice(list(COLORS))),))


def _position(rng: random.Random) -> Claim:
    return Claim(draw_different(rng, 2, colored=False), rng.choice(RELATIONS))


def _color_attribution(rng: random.Random) -> Claim:
    return Claim(draw_different(rng, 2, colored=True))


def _texture(rng: random.Random) -> Claim:
    """Claim which of two shapes has which texture."""
    return _bound(rng, "texture", TEXTURES)


def _size_binding(rng: random.Random) -> Claim:
    """Claim which of two shapes is small and which is large."""
    return _bound(rng, "size", SIZES)


def _size(rng: random.Random) -> Claim:
    """Claim one object, small or large."""
    return Claim((Group(rng.choice(SHAPES), size=rng.choice(SIZES)),))


def _bound(rng: random.Random, attribute: str, values: tuple[str, ...]) -> Claim:
    groups = draw_different(rng, 2, colored=False)
    drawn = rng.sample(values, 2)
    return Claim(
        tuple(replace(group, **{attribute: v}) for group, v in zip(groups, drawn, strict=True))
    )


TASKS: dict[str, Callable[[random.Random], Claim]] = {
    "single_object": _single_object,
    "two_objects": _two_objects,
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "color_attribution": _color_attribution,
    "texture": _texture,
    "size_binding": _size_binding,
    "size": _size,
}
"""Claim generator of each task. New tasks come last, because an image's seed is its index."""
AVERAGED_TASKS: tuple[str, ...] = tuple(TASKS)[:6]
"""Tasks whose mean is the overall score. GenEval has the same ones, with other scenes and
another scorer, so that the numbers are not comparable."""
MEAN_LABEL = "mean of six scene tasks (GenEval's task names, our own scorer)"
"""Label of the overall score in tables."""
_SEED_NAMES = {"size_binding": "shape_binding"}
"""Earlier task names that seed the prompts, so that scores stay comparable."""
HELD_OUT_TASKS: tuple[str, ...] = ("colors", "position", "color_attribution")
