"""Random generation of scenes: first the caption's claim, then all other attributes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

from lidit_jax.data.scenes.render import bounds
from lidit_jax.data.scenes.scene import Claim, Group, Scene, SceneObject
from lidit_jax.data.scenes.vocabulary import (
    COLORS,
    COUNTS,
    RADII,
    RELATIONS,
    SHAPES,
    TEXTURES,
)

MIXTURE: MappingProxyType[str, float] = MappingProxyType(
    {
        "single_object": 0.08,
        "colors": 0.20,
        "two_objects": 0.08,
        "color_attribution": 0.27,
        "counting": 0.15,
        "position": 0.17,
        "many_objects": 0.05,
    }
)
"""Share of each task in the training scenes, before textures and sizes are added."""

TEXTURED, SIZED = 0.15, 0.15
"""Default shares of the scenes whose caption names a texture, and a size."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom from an object's center, in units of the image's side."""

_GAP = 3 / 64
"""Least distance between two bounding boxes."""
_BORDER = 1.5 / 64
"""Least distance to the border of the image."""
_ACROSS = 7 / 64
"""Largest offset perpendicular to the axis of a relation."""
_COLORS = list(COLORS)


def draw_task(rng: random.Random, shares: Sequence[float] = ()) -> str:
    """Draw a task with the training shares or `shares`, in the order of `MIXTURE`."""
    return rng.choices(list(MIXTURE), shares or list(MIXTURE.values()))[0]


def draw_claim(
    task: str, rng: random.Random, textured: float = TEXTURED, sized: float = SIZED
) -> Claim:
    """Draw a claim of `task`, with textures and sizes added in the given shares."""
    claim = _CLAIMS[task](rng)
    if rng.random() < textured:
        claim = _sprinkle(claim, "texture", TEXTURES[1:] * 3 + TEXTURES[:1], rng)
    # Two large objects fit side by side; three do not.
    if rng.random() < sized and claim.count <= 2:
        claim = _sprinkle(claim, "size", ("small", "large"), rng)
    return claim


def realize(task: str, claim: Claim, rng: random.Random) -> Scene:
    """Draw a scene for which `claim` is true, with unspecified attributes at random.

    Colors are any, textures solid, sizes medium; places are any, except that a relation puts its
    two objects side by side along its axis. Objects neither touch nor leave the image.
    """
    wanted = []
    for group in claim.groups:
        color = group.color or rng.choice(_COLORS)
        filled = Group(group.shape, color, group.texture or "solid", group.size or "medium")
        wanted += [filled] * group.count
    radii = [rng.uniform(*RADII[group.size]) for group in wanted]
    if len(radii) > 2:
        radii = [min(radius, RADII["medium"][0]) for radius in radii]
    centers = _place(wanted, radii, claim.relation, rng)
    objects = tuple(
        SceneObject(group.color, group.shape, group.texture, group.size, x, y, radius)
        for group, (x, y), radius in zip(wanted, centers, radii, strict=True)
    )
    return Scene(task, objects, claim)


def draw_different(rng: random.Random, count: int, colored: bool) -> tuple[Group, ...]:
    """Draw groups of one object with different shapes and, if `colored`, different colors."""
    shapes = rng.sample(SHAPES, count)
    colors = rng.sample(_COLORS, count) if colored else [None] * count
    return tuple(Group(s, c) for s, c in zip(shapes, colors, strict=True))


def _single(rng: random.Random) -> Claim:
    return Claim((Group(rng.choice(SHAPES)),))


def _colored(rng: random.Random) -> Claim:
    return Claim((Group(rng.choice(SHAPES), rng.choice(_COLORS)),))


def _two(rng: random.Random) -> Claim:
    return Claim(draw_different(rng, 2, colored=False))


def _two_colored(rng: random.Random) -> Claim:
    first, second = draw_different(rng, 2, colored=True)
    draw = rng.random()
    if draw < 0.12:
        second = replace(second, shape=first.shape)
    elif draw < 0.24:
        second = replace(second, color=first.color)
    return Claim((first, second))


def _counting(rng: random.Random) -> Claim:
    color = rng.choice(_COLORS) if rng.random() < 0.6 else None
    return Claim((Group(rng.choice(SHAPES), color, count=rng.choice(COUNTS)),))


def _position(rng: random.Random) -> Claim:
    groups = draw_different(rng, 2, colored=rng.random() < 0.6)
    return Claim(groups, rng.choice(RELATIONS))


def _many(rng: random.Random) -> Claim:
    groups = draw_different(rng, rng.choice((3, 3, 4)), colored=True)
    if len(groups) == 3 and rng.random() < 0.3:
        groups = (replace(groups[0], count=2), *groups[1:])
    return Claim(groups)


_CLAIMS = {
    "single_object": _single,
    "colors": _colored,
    "two_objects": _two,
    "color_attribution": _two_colored,
    "counting": _counting,
    "position": _position,
    "many_objects": _many,
}


def _sprinkle(claim: Claim, name: str, values: tuple[str, ...], rng: random.Random) -> Claim:
    """Set attribute `name` in the claim, for every group or for one of them."""
    chosen = rng.choice([None, *range(len(claim.groups))])
    groups = tuple(
        replace(group, **{name: rng.choice(values)}) if chosen in (None, i) else group
        for i, group in enumerate(claim.groups)
    )
    return replace(claim, groups=groups)


def _place(
    wanted: list[Group], radii: list[float], relation: str | None, rng: random.Random
) -> list[tuple[float, float]]:
    """Draw centers at which the objects do not overlap and stay inside the image."""
    boxes = []
    for group, radius in zip(wanted, radii, strict=True):
        left, top, right, bottom = bounds(group.shape)
        boxes.append((radius * left, radius * top, radius * right, radius * bottom))
    while True:
        if relation:
            centers = _along(boxes, relation, rng)
        elif len(boxes) <= 2:
            centers = [_anywhere(box, rng) for box in boxes]
        else:
            centers = _in_quadrants(len(boxes), rng)
        if _apart(centers, boxes):
            return centers


def _anywhere(box: Box, rng: random.Random) -> tuple[float, float]:
    left, top, right, bottom = box
    x = rng.uniform(_BORDER - left, 1 - _BORDER - right)
    return x, rng.uniform(_BORDER - top, 1 - _BORDER - bottom)


def _along(boxes: list[Box], relation: str, rng: random.Random) -> list[tuple[float, float]]:
    first, second = (list(_anywhere(box, rng)) for box in boxes)
    axis = int(relation in ("above", "below"))
    if (first[axis] < second[axis]) != (relation in ("left", "above")):
        first[axis], second[axis] = second[axis], first[axis]
    second[1 - axis] = first[1 - axis] + rng.uniform(-_ACROSS, _ACROSS)
    return [(first[0], first[1]), (second[0], second[1])]


def _in_quadrants(count: int, rng: random.Random) -> list[tuple[float, float]]:
    """Draw centers near the quadrants, because four objects rarely fit at random."""
    reach = 5 / 64
    cells = rng.sample([(0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)], count)
    return [(x + rng.uniform(-reach, reach), y + rng.uniform(-reach, reach)) for x, y in cells]


def _apart(centers: list[tuple[float, float]], boxes: list[Box]) -> bool:
    placed: list[Box] = []
    # Plain loops for speed: most of the time per scene is spent here.
    for (x, y), (left, top, right, bottom) in zip(centers, boxes, strict=True):
        a = (x + left, y + top, x + right, y + bottom)
        if min(a) < _BORDER or max(a) > 1 - _BORDER:
            return False
        for b in placed:
            if max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3]) < _GAP:
                return False
        placed.append(a)
    return True
