"""Renderer of scenes: polygons, supersampled with Pillow."""

from __future__ import annotations

import functools
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageChops, ImageDraw

from lidit_jax.data.scenes.scene import Scene, SceneObject
from lidit_jax.data.scenes.vocabulary import BACKGROUND, COLORS, SHADE
from lidit_jax.errors import LiditError

SUPERSAMPLING = 4
STRIPE_PERIOD = 6 / 64
"""Period of the stripes, in units of the image's side."""
DOT_PERIOD = 5.5 / 64
DOT_RADIUS = 1.6 / 64


def render(scene: Scene, size: int = 64) -> UInt8[np.ndarray, "H W 3"]:
    """Render a scene as an image.

    Args:
      scene: to render.
      size: side of the image in pixels, a multiple of 8.

    Returns:
      sRGB pixels, antialiased.

    Raises:
      LiditError: when `size` is not a positive multiple of 8.
    """
    check_size(size)
    side = size * SUPERSAMPLING
    canvas = Image.new("RGB", (side, side), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for thing in scene.objects:
        draw.polygon(_corners(thing, side), fill=_color(thing))
        if thing.texture != "solid":
            _shade(canvas, thing)
    return np.asarray(canvas.reduce(SUPERSAMPLING))


def check_size(size: int) -> None:
    """Raise `LiditError` unless `size` is a positive multiple of 8, the autoencoder's factor."""
    if size <= 0 or size % 8:
        raise LiditError(f"image size {size}: must be a positive multiple of 8")


@functools.cache
def outline(shape: str) -> tuple[tuple[float, float], ...]:
    """Return the corners of a shape of radius 1 around its center of mass, y pointing down."""
    points = np.asarray(_OUTLINES[shape](), np.float64).reshape(-1, 2)
    points -= _centroid(points)
    return tuple((x, y) for x, y in points.tolist())


@functools.cache
def bounds(shape: str) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a shape of radius 1, from its center of mass."""
    x, y = zip(*outline(shape), strict=True)
    return min(x), min(y), max(x), max(y)


def _color(thing: SceneObject) -> tuple[int, int, int]:
    # Objects of a scene have a color; only objects that the scorer finds may have none.
    assert thing.color is not None
    return COLORS[thing.color]


def _corners(thing: SceneObject, side: int) -> list[tuple[float, float]]:
    x, y, radius = thing.x * side - 0.5, thing.y * side - 0.5, thing.radius * side
    return [(x + radius * u, y + radius * v) for u, v in outline(thing.shape)]


def _shade(canvas: Image.Image, thing: SceneObject) -> None:
    """Draw stripes or dots, anchored at the object's center, in the darker tone of its color."""
    side = canvas.width
    inside = Image.new("L", canvas.size, 0)
    ImageDraw.Draw(inside).polygon(_corners(thing, side), fill=255)
    pattern = Image.new("L", canvas.size, 0)
    draw = ImageDraw.Draw(pattern)
    x, y = thing.x * side - 0.5, thing.y * side - 0.5
    steps = range(-4, 5)
    if thing.texture == "striped":
        for i in steps:
            top = y + (i - 0.25) * STRIPE_PERIOD * side
            draw.rectangle((0, top, side, top + STRIPE_PERIOD / 2 * side), fill=255)
    else:
        reach = DOT_RADIUS * side
        for row in steps:
            for column in steps:
                u = x + (column + 0.5 * (row % 2)) * DOT_PERIOD * side
                v = y + row * DOT_PERIOD * side
                draw.ellipse((u - reach, v - reach, u + reach, v + reach), fill=255)
    dark = tuple(round(SHADE * channel) for channel in _color(thing))
    canvas.paste(dark, mask=ImageChops.multiply(inside, pattern))


def _centroid(points: np.ndarray) -> np.ndarray:
    following = np.roll(points, -1, axis=0)
    cross = points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]
    return ((points + following) * cross[:, None]).sum(0) / (3 * cross.sum())


def _arc(radius: float, start: float, stop: float, corners: int, x: float = 0.0) -> list:
    angles = np.linspace(start, stop, corners)
    return [(x + radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _circle() -> list:
    return _arc(1.0, 0, 2 * math.pi * 47 / 48, 48)


def _square() -> list:
    return [(-0.92, -0.92), (0.92, -0.92), (0.92, 0.92), (-0.92, 0.92)]


def _triangle() -> list:
    return [(0, -1.05), (1.12, 0.9), (-1.12, 0.9)]


def _star() -> list:
    angles = [math.pi * (i / 5 - 0.5) for i in range(10)]
    radii = [1.18, 0.5] * 5
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _heart() -> list:
    angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    # The classic heart curve, scaled to a half width of 1.1.
    x = 16 * np.sin(angles) ** 3
    y = 13 * np.cos(angles) - 5 * np.cos(2 * angles) - 2 * np.cos(3 * angles) - np.cos(4 * angles)
    return list(zip(x * 1.1 / 16, -y * 1.1 / 16, strict=True))


def _cross() -> list:
    arm, half = 1.08, 0.36
    quarter = [(half, -arm), (half, -half), (arm, -half)]
    turned = [(-v, u) for u, v in quarter]
    return [
        *quarter,
        *turned,
        *[(-u, -v) for u, v in quarter],
        *[(-u, -v) for u, v in turned],
    ]


def _moon() -> list:
    # A disc of radius 1.1 minus a disc of radius 0.9 whose center is 0.62 to its right.
    outer, inner, shift = 1.1, 0.9, 0.62
    x = (outer**2 - inner**2 + shift**2) / (2 * shift)
    y = math.sqrt(outer**2 - x**2)
    tip, dent = math.atan2(y, x), math.atan2(y, x - shift)
    return [
        *_arc(outer, tip, 2 * math.pi - tip, 36),
        *_arc(inner, 2 * math.pi - dent, dent, 24, shift)[1:-1],
    ]


_OUTLINES = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
    "moon": _moon,
}
