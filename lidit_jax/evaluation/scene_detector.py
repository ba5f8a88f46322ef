"""Detection of the objects in scene images, from pixels alone.

The palette and the shapes are known, so no learned detector is needed: objects are connected
regions that differ from the background, color is the median hue, shape the best overlap with a
blurred template of equal area, texture the pattern of the luminance.
"""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from scipy import ndimage

from lidit_jax.data.scenes.render import outline
from lidit_jax.data.scenes.scene import SceneObject
from lidit_jax.data.scenes.vocabulary import COLORS, RADII, SHADE, SHAPES
from lidit_jax.errors import LiditError

WORKING_SIZE = 64
"""Side in pixels to which every image is resampled, because the thresholds below depend on it."""
SMOOTHING = 0.7
"""Sigma in pixels of the Gaussian filter against noise."""
FOREGROUND = 55.0
"""Smallest RGB distance from the background of an object's pixels."""
EDGE = 0.45
"""Share of its neighborhood's largest distance at which an object ends."""
SPECK = 22
"""Regions with fewer pixels are ignored; the smallest object has about 45."""
COLORLESS = 40.0
"""Chroma, on a scale of 255, below which an object has no color."""
OVERLAP = 0.72
"""Smallest overlap (intersection over union) with a shape's template."""
BLUR = 1.0
"""Sigma in pixels of the templates' blur: the smoothing above plus that of rendering."""
DARK_SPREAD = 0.095
"""Standard deviation of the darker tone's share (0 to 1) above which there may be a pattern."""
BRIGHT_SPREAD = 0.045
"""Standard deviation of the brightness (1 for the plain color) above which there is one."""
ROWS = 0.78
"""Share of the darker tone's variance between rows above which a pattern is stripes, not dots."""

_SIZE_LIMITS = (
    (RADII["small"][1] + RADII["medium"][0]) / 2,
    (RADII["medium"][1] + RADII["large"][0]) / 2,
)
_GRID = 4
_SPAN = 22.0


def detect(image: UInt8[np.ndarray, "H W 3"]) -> tuple[SceneObject, ...]:
    """Return the objects in an image of a scene, largest first.

    Args:
      image: sRGB pixels of any size.

    Raises:
      LiditError: when `image` is not an array of uint8 [H, W, 3].
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise LiditError(f"a scene must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
    raw = _resample(image)
    pixels = ndimage.gaussian_filter(raw, (SMOOTHING, SMOOTHING, 0))
    background = np.median(pixels[_border()], axis=0)
    distance = np.sqrt(((pixels - background) ** 2).sum(-1))
    noise = _noise(raw, distance < FOREGROUND / 2)
    peak = ndimage.maximum_filter(distance, 7)
    labels = np.empty(distance.shape, np.int32)
    ndimage.label(distance > np.maximum(FOREGROUND, EDGE * peak), output=labels)
    found = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        rows, columns = (slice(max(0, s.start - 2), s.stop + 2) for s in box)
        box = rows, columns
        mask = labels[box] == number
        if mask.sum() >= SPECK:
            found.append(_describe(pixels[box], distance[box], mask, box, background, noise))
    return tuple(sorted(found, key=lambda thing: -thing.radius))


@functools.cache
def _border() -> np.ndarray:
    mask = np.ones((WORKING_SIZE, WORKING_SIZE), bool)
    mask[2:-2, 2:-2] = False
    return mask


def _resample(image: np.ndarray) -> np.ndarray:
    size = (WORKING_SIZE, WORKING_SIZE)
    if image.shape[:2] != size:
        method = Image.Resampling.BOX if min(image.shape[:2]) > WORKING_SIZE else None
        image = np.asarray(Image.fromarray(image).resize(size, method))
    return image.astype(np.float32)


def _noise(raw: np.ndarray, calm: np.ndarray) -> float:
    """Return the standard deviation of pixel noise after smoothing."""
    steps = np.abs(raw[:, 1:] - raw[:, :-1])[calm[:, 1:] & calm[:, :-1]]
    if not steps.size:
        return 0.0
    # 0.6745 is the median of |x| for a standard normal x; a Gaussian of width s keeps
    # 1 / (2 s sqrt(pi)) of white noise.
    return float(np.median(steps)) / (0.6745 * 2**0.5) / (2 * SMOOTHING * np.pi**0.5)


def _describe(
    pixels: np.ndarray,
    distance: np.ndarray,
    mask: np.ndarray,
    box: tuple[slice, slice],
    background: np.ndarray,
    noise: float,
) -> SceneObject:
    inside: np.ndarray = ndimage.binary_erosion(mask)
    if inside.sum() < SPECK:
        inside = mask
    level = np.percentile(distance[inside], 30)
    core: np.ndarray = ndimage.binary_erosion(mask, np.ones((3, 3)))
    if core.sum() < SPECK:
        core = inside
    near = ndimage.binary_dilation(mask, iterations=2)
    cover = np.where(near, np.clip(distance / level, 0, 1), 0)
    area = float(cover.sum())
    rows, columns = np.indices(cover.shape)
    y, x = float((rows * cover).sum()) / area, float((columns * cover).sum()) / area
    shape, radius = _shape(cover, area, y, x)
    color = _color(pixels[inside])
    return SceneObject(
        color=color,
        shape=shape,
        texture=_texture(pixels[core], np.nonzero(core)[0], color, background, noise),
        size=("small", "medium", "large")[sum(radius > limit for limit in _SIZE_LIMITS)],
        x=(box[1].start + x + 0.5) / WORKING_SIZE,
        y=(box[0].start + y + 0.5) / WORKING_SIZE,
        radius=radius,
    )


def _color(pixels: Float[np.ndarray, "P 3"]) -> str | None:
    chroma = np.median(_opponent(pixels), axis=0)
    length = np.hypot(*chroma)
    if length < COLORLESS:
        return None
    names, directions = _palette()
    return names[int(np.argmax(directions @ chroma))]


def _opponent(pixels: np.ndarray) -> np.ndarray:
    """Return the two chroma coordinates; their angle is the hue."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return np.stack([red - (green + blue) / 2, np.sqrt(3) / 2 * (green - blue)], axis=-1)


@functools.cache
def _palette() -> tuple[tuple[str, ...], np.ndarray]:
    directions = _opponent(np.array(list(COLORS.values()), np.float32))
    return tuple(COLORS), directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _texture(
    pixels: Float[np.ndarray, "P 3"],
    rows: np.ndarray,
    color: str | None,
    background: np.ndarray,
    noise: float,
) -> str:
    """Classify an object's texture by the pattern of its darker tone.

    Each pixel is a mixture of background, color and darker tone. Solving for the shares keeps the
    blurred edge of the object out of the pattern; a change of brightness must confirm it, because
    compression and autoencoders smear hues.
    """
    if color is None:
        return "solid"
    base = np.array(COLORS[color], np.float32)
    solve = np.linalg.pinv(np.stack([base - background, (SHADE - 1) * base], axis=1))
    cover, dark = solve @ (pixels - background).T
    dark = np.clip(dark / np.maximum(cover, 0.5), -1, 2)
    spread, striped = _pattern(dark, rows, noise * float(np.linalg.norm(solve[1])))
    bright = pixels @ base / (base @ base)
    change, _ = _pattern(bright, rows, noise / float(np.linalg.norm(base)))
    if spread < DARK_SPREAD or change < BRIGHT_SPREAD:
        return "solid"
    return "striped" if striped > ROWS else "dotted"


def _pattern(
    values: np.ndarray, rows: np.ndarray, noise: float | np.floating
) -> tuple[float, float]:
    """Return the standard deviation beyond noise, and the share of variance between rows."""
    variance = values.var() - noise**2
    if variance <= 0:
        return 0.0, 0.0
    means = np.bincount(rows, values) / np.maximum(np.bincount(rows), 1)
    within = ((values - means[rows]) ** 2).mean() - noise**2
    return float(np.sqrt(variance)), float(1 - within / variance)


def _shape(cover: np.ndarray, area: float, y: float, x: float) -> tuple[str | None, float]:
    """Return the best shape template of equal area, and its radius in units of the side."""
    best = (OVERLAP, None, float(np.sqrt(area / np.pi)))
    rows, columns = np.indices(cover.shape)
    for shape in SHAPES:
        radius = float(np.sqrt(area / _unit_area(shape)))
        if radius > _SPAN / 1.4:
            continue
        template = _template(shape, round(2 * radius) / 2)
        middle = (template.shape[0] - 1) / 2
        places = [(rows - y) * _GRID + middle, (columns - x) * _GRID + middle]
        expected = ndimage.map_coordinates(template, places, order=1)
        overlap = np.minimum(cover, expected).sum() / np.maximum(cover, expected).sum()
        best = max(best, (overlap, shape, radius), key=lambda item: item[0])
    return best[1], best[2] / WORKING_SIZE


@functools.cache
def _unit_area(shape: str) -> float:
    x, y = np.array(outline(shape)).T
    return float(abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2)


@functools.cache
def _template(shape: str, radius: float) -> np.ndarray:
    """Return a blurred mask of a shape: `_GRID` samples per pixel, `2 * _SPAN` pixels wide."""
    side = int(2 * _SPAN * _GRID) + 1
    mask = Image.new("L", (side, side), 0)
    middle = (side - 1) / 2
    corners = [
        (middle + radius * _GRID * u, middle + radius * _GRID * v) for u, v in outline(shape)
    ]
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    return ndimage.gaussian_filter(np.asarray(mask, np.float32) / 255, BLUR * _GRID)
