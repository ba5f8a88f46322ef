"""Photo-like JPEGs of the sizes that cameras write, for benchmarks of data loading."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw

from lidit_jax.io.output import atomic_file

_MEGAPIXELS = (1.0, 24.0)
"""Smallest and largest photo; sizes are uniform in their logarithm."""
_ASPECTS = (3 / 2, 4 / 3, 1.0, 16 / 9)
_TILE = 2200
"""Side of the texture that is repeated, mirrored, so that the largest photo can be cut from it."""
_REPEATS = 3
_GRAIN = 6.0
"""Standard deviation of the noise of single pixels, as of a camera's sensor, in 1/255."""
_QUALITY = 90
_EDGES = 12
"""Number of shapes with sharp edges in a photo."""


def write_photos(
    folder: Path, count: int, progress: Callable[[int, int], None], threads: int
) -> None:
    """Write `00000.jpg` and so on, each with a caption in a text file beside it.

    Photos that are there already are kept, so that a killed run goes on.

    Args:
      folder: where to write.
      count: number of photos.
      progress: called with the number of photos written, and the total.
      threads: number of threads that encode.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def write(number: int) -> None:
        file = folder / f"{number:05}.jpg"
        if file.exists():
            return
        file.with_suffix(".txt").write_text(f"photo number {number}\n", encoding="utf-8")
        with atomic_file(file) as stream:
            photo(number).save(stream, "JPEG", quality=_QUALITY)

    progress(0, count)
    with ThreadPoolExecutor(threads) as pool:
        for done, _ in enumerate(pool.map(write, range(count)), start=1):
            progress(done, count)


def photo(number: int) -> Image.Image:
    """Return a photo: texture whose amplitude falls with frequency, and shapes with sharp edges.

    Args:
      number: seed of its size, texture and shapes.
    """
    random = np.random.default_rng(number)
    width, height = _size(random)
    canvas = _canvas()
    top = int(random.integers(canvas.shape[0] - height + 1))
    left = int(random.integers(canvas.shape[1] - width + 1))
    image = Image.fromarray(canvas[top : top + height, left : left + width])
    draw = ImageDraw.Draw(image)
    for _ in range(_EDGES):
        x, y = random.uniform(0, width), random.uniform(0, height)
        radius = random.uniform(0.02, 0.15) * min(width, height)
        color = tuple(int(value) for value in random.integers(0, 256, 3))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    return image


def _size(random: np.random.Generator) -> tuple[int, int]:
    """Return a random width and height."""
    low, high = (math.log(value * 1e6) for value in _MEGAPIXELS)
    pixels = math.exp(random.uniform(low, high))
    aspect = float(random.choice(_ASPECTS))
    if random.random() < 0.5:
        aspect = 1 / aspect
    return round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))


@functools.cache
def _canvas() -> UInt8[np.ndarray, "H W 3"]:
    """Return the texture: noise of all octaves, each with 0.6 of the coarser one's amplitude."""
    random = np.random.default_rng(0)
    total = _GRAIN * random.standard_normal((_TILE, _TILE, 3), np.float32)
    for octave in range(2, int(math.log2(_TILE)) + 1):
        amplitude = 50 * 0.6 ** (octave - 2)
        for channel in range(3):
            total[..., channel] += amplitude * _octave(random, 2**octave)
    tile = np.clip(128 + total, 0, 255).astype(np.uint8)
    mirrored = [tile[:, ::-1] if place % 2 else tile for place in range(_REPEATS)]
    row = np.concatenate(mirrored, axis=1)
    return np.concatenate([row[::-1] if place % 2 else row for place in range(_REPEATS)])


def _octave(random: np.random.Generator, cells: int) -> Float32[np.ndarray, "H W"]:
    noise = Image.fromarray(random.standard_normal((cells, cells), np.float32))
    return np.asarray(noise.resize((_TILE, _TILE), Image.Resampling.BICUBIC))
