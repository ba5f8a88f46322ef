"""The prompts of the scenes benchmark, each with the claim that an image must fulfil."""

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
    """Whether the words hold a combination that no training caption has
    (`lidit_jax.data.scenes.held_out`)."""


def evaluation_prompts(
    per_task: int = 50, seed: int = 0, language: str = "en"
) -> list[ScenePrompt]:
    """Prompts for six tasks named as in GenEval (arXiv 2310.11513), two bindings, and sizes.

    Half of the prompts of `HELD_OUT_TASKS` hold a combination that training never shows; the words
    of the other tasks are too few to hold any out. Prompts repeat only where a task has fewer
    than `per_task`.

    Args:
      per_task: prompts of each task.
      seed: another seed gives other prompts.
      language: "en" or "zh".

    Returns:
      `len(TASKS) * per_task` prompts, task after task.

    Raises:
      LiditError: when `per_task` is not positive or far too large, or the language unknown.
    """
    if per_task <= 0:
        raise LiditError(f"{per_task} prompts a task: ask for at least one")
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
    """A prompt not in `used` if one turns up soon."""
    found = None
    for _ in range(_ATTEMPTS):
        claim = TASKS[task](rng)
        if claim_held_out(claim) == held_out:
            found = ScenePrompt(task, caption(claim, rng, language), claim, held_out)
            if found.prompt not in used:
                break
    if found is None:
        raise LiditError(f"no prompt of the task {task} turned up: try another seed")
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
    """Which of two shapes has which texture."""
    return _bound(rng, "texture", TEXTURES)


def _size_binding(rng: random.Random) -> Claim:
    """Which of two shapes is the small one and which the large one."""
    return _bound(rng, "size", SIZES)


def _size(rng: random.Random) -> Claim:
    """One object, small or large."""
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
"""What each task's prompts claim. New tasks come last: an image's seed follows its place."""
AVERAGED_TASKS: tuple[str, ...] = tuple(TASKS)[:6]
"""The tasks whose mean is the overall score: those that GenEval has too, with other scenes and
another scorer, so that the numbers do not compare."""
MEAN_LABEL = "mean of six scene tasks (GenEval's task names, our own scorer)"
"""What tables call the overall score."""
_SEED_NAMES = {"size_binding": "shape_binding"}
"""Tasks whose prompts are still drawn by an earlier name, so that scores stay comparable."""
HELD_OUT_TASKS: tuple[str, ...] = ("colors", "position", "color_attribution")
