"""Combinations held out from training, by a fixed rule independent of the seed.

Four kinds of combination are held out, and the held-out split and half of the evaluation prompts
consist of them:

- `HELD_OUT_PAIRS`: four pairs of color and shape, at any place. Their color and their shape are
  each seen with all other partners.
- color x shape x quadrant: a quarter of the other pairs is never shown in one quadrant. With the
  pairs above, 29 of the 224 combinations are held out, about an eighth.
- relations: 13 of the 84 statements "shape A left of shape B" or "A above B" (and so "B right of
  A", "B below A") are never made, colored or not.
- companions: about an eighth of the pairs of colored shapes never appears in one caption.
"""

from __future__ import annotations

import zlib
from itertools import combinations

from lidit_jax.data.scenes.scene import Claim, Group, Scene, SceneObject
from lidit_jax.data.scenes.vocabulary import COLORS, OPPOSITES, SHAPES

HELD_OUT_PAIRS: frozenset[tuple[str, str]] = frozenset(
    {("cyan", "heart"), ("orange", "star"), ("pink", "square"), ("green", "moon")}
)
_COLOR_INDEX = {name: i for i, name in enumerate(COLORS)}
_SHAPE_INDEX = {name: i for i, name in enumerate(SHAPES)}


def object_held_out(thing: SceneObject) -> bool:
    """Return whether the object's color and shape are held out in its quadrant."""
    if (thing.color, thing.shape) in HELD_OUT_PAIRS:
        return True
    # Objects of a scene have both: only objects that the scorer finds may lack one.
    assert thing.color is not None
    assert thing.shape is not None
    color, shape = _COLOR_INDEX[thing.color], _SHAPE_INDEX[thing.shape]
    return (color + 2 * shape) % 4 == 0 and (3 * color + shape) % 4 == thing.quadrant


def relation_held_out(first: str, relation: str, second: str) -> bool:
    """Return whether "`first` is `relation` of `second`" (two shapes) is held out."""
    if relation in ("right", "below"):
        return relation_held_out(second, OPPOSITES[relation], first)
    return _drawn(f"{first} {relation} {second}")


def companions_held_out(first: Group, second: Group) -> bool:
    """Return whether two colored shapes are held out as a pair, in either order."""
    if first.color is None or second.color is None:
        return False
    names = sorted(f"{group.color} {group.shape}" for group in (first, second))
    return _drawn(" and ".join(names))


def claim_held_out(claim: Claim) -> bool:
    """Return whether the caption itself has a held-out combination."""
    groups = claim.groups
    if any((group.color, group.shape) in HELD_OUT_PAIRS for group in groups):
        return True
    if claim.relation and relation_held_out(groups[0].shape, claim.relation, groups[1].shape):
        return True
    return any(companions_held_out(*pair) for pair in combinations(groups, 2))


def scene_held_out(scene: Scene) -> bool:
    """Return whether any object of the scene is held out at its position."""
    return any(map(object_held_out, scene.objects))


def admitted(scene: Scene, split: str) -> bool:
    """Return whether a scene may be in a split.

    "train" has no held-out combination at all; each scene of "heldout" has an object whose color,
    shape and quadrant never occur together in training.
    """
    held_out = scene_held_out(scene)
    return held_out if split == "heldout" else not (held_out or claim_held_out(scene.claim))


def _drawn(combination: str) -> bool:
    """Return whether a combination is among the held-out eighth, the same on every machine."""
    return zlib.crc32(combination.encode()) % 8 == 0
