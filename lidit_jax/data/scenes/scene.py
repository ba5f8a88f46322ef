"""Data types of scenes, their objects, and the claims of captions about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lidit_jax.data.scenes.vocabulary import OPPOSITES

RELATION_MARGIN = 0.05
"""Least distance of two centers along their relation's axis, in units of the image's side."""


@dataclass(frozen=True)
class SceneObject:
    """Object of a scene, to render or as detected by the scorer."""

    color: str | None
    """A key of `COLORS`; None when the scorer detects no color."""
    shape: str | None
    """A name of `SHAPES`; None when the scorer recognizes no shape."""
    texture: str
    size: str
    """"small", "medium" or "large"."""
    x: float
    y: float
    """Center, in units of the image's side; y points down."""
    radius: float
    """Half the extent of the shape, in units of the image's side."""

    @property
    def quadrant(self) -> int:
        """Coarse position: 0 top left, 1 top right, 2 bottom left, 3 bottom right."""
        return 2 * (self.y >= 0.5) + (self.x >= 0.5)

    def __str__(self) -> str:
        size = "" if self.size == "medium" else f"{self.size} "
        texture = "" if self.texture == "solid" else f"{self.texture} "
        return f"{size}{texture}{self.color or 'colorless'} {self.shape or 'blob'}"


@dataclass(frozen=True)
class Group:
    """`count` objects with the same attributes; None is an unspecified attribute."""

    shape: str
    color: str | None = None
    texture: str | None = None
    size: str | None = None
    count: int = 1

    def matches(self, thing: SceneObject) -> bool:
        """Return whether `thing` has every attribute that the group specifies."""
        return all(
            wanted is None or wanted == getattr(thing, name)
            for name, wanted in (
                ("shape", self.shape),
                ("color", self.color),
                ("texture", self.texture),
                ("size", self.size),
            )
        )

    def __str__(self) -> str:
        words = (self.size, self.texture, self.color, self.shape)
        return f"{self.count} " + " ".join(word for word in words if word)


@dataclass(frozen=True)
class Claim:
    """Checkable content of a caption: exactly these objects and no others."""

    groups: tuple[Group, ...]
    relation: str | None = None
    """Position of the first group's object relative to the second's; None if unspecified."""

    @property
    def count(self) -> int:
        """Number of objects in the claim."""
        return sum(group.count for group in self.groups)

    def failure(self, objects: Sequence[SceneObject]) -> str | None:
        """Return a line on why `objects` do not satisfy the claim; None when they do."""
        seen = ", ".join(map(str, objects)) or "nothing"
        if len(objects) != self.count:
            return f"wanted {self.count} object(s), found {len(objects)}: {seen}"
        wanted = [group for group in self.groups for _ in range(group.count)]
        assignments = list(_assignments(wanted, objects))
        if not assignments:
            return f"wanted {', '.join(map(str, self.groups))}; found {seen}"
        if self.relation is None or any(
            holds(self.relation, first, second) for first, second, *_ in assignments
        ):
            return None
        return f"the {self.groups[0].shape} is not {self.relation} of the {self.groups[1].shape}"


@dataclass(frozen=True)
class Scene:
    """Objects of an image with the task and the claim of its caption."""

    task: str
    objects: tuple[SceneObject, ...]
    claim: Claim


def holds(relation: str, first: SceneObject, second: SceneObject) -> bool:
    """Return whether `first` is `relation` ("left", "right", "above", "below") of `second`.

    As in GenEval, the offset of the centers must point along that axis more than along the other.
    """
    if relation in ("right", "below"):
        return holds(OPPOSITES[relation], second, first)
    dx, dy = second.x - first.x, second.y - first.y
    along, across = (dx, dy) if relation == "left" else (dy, dx)
    return along > RELATION_MARGIN and along >= abs(across)


def _assignments(
    wanted: list[Group], objects: Sequence[SceneObject]
) -> Iterator[tuple[SceneObject, ...]]:
    if not wanted:
        yield ()
        return
    for i, thing in enumerate(objects):
        if wanted[0].matches(thing):
            for rest in _assignments(wanted[1:], [*objects[:i], *objects[i + 1 :]]):
                yield (thing, *rest)
