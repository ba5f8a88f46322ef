"""Memory checks before sampling, and a clear error when images do not fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from lidit_jax.errors import LiditError
from lidit_jax.hardware.host_memory import host_memory

MOST_IMAGES = 1_000_000
"""Most images per call or command: a longer list of requests would itself fill the memory."""
_BYTES = 3
"""Bytes per pixel of a finished image; while it is decoded it has four times as many, float32."""
_GIB = 2**30


def check_count(count: int) -> None:
    """Raise `LiditError` for more images than one call can draw."""
    if count > MOST_IMAGES:
        raise LiditError(
            f"{count} images are too many at once: draw at most {MOST_IMAGES} per call, from "
            "another seed each time"
        )


def check_memory(count: int, size: tuple[int, int]) -> None:
    """Raise `LiditError` for images that do not fit in this machine's memory when finished.

    The network's own memory is extra, and depends on the devices: see `explain_out_of_memory`.

    Args:
      count: number of images.
      size: (height, width) in pixels.
    """
    check_count(count)
    available, image = host_memory(), _BYTES * math.prod(size)
    needed = image * (count + 4)
    if needed <= available:
        return
    have = f"this machine has {available / _GIB:.1f} GiB"
    shape = f"{size[1]}x{size[0]} pixels"
    most = available // image - 4
    if most > 0:
        raise LiditError(
            f"{count} images of {shape} need more than {needed / _GIB:.0f} GiB of memory, {have}: "
            f"draw at most {most} per call, each time from another seed"
        )
    side = math.isqrt(available // (5 * _BYTES))
    raise LiditError(
        f"an image of {shape} needs more than {5 * image / _GIB:.0f} GiB of memory, {have}: "
        f"draw less than {side}x{side} pixels"
    )


@contextmanager
def explain_out_of_memory(size: tuple[int, int]) -> Iterator[None]:
    """Turn a device's out-of-memory error into a `LiditError` about the size (height, width)."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        text = str(error)
        named = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory")
        if not isinstance(error, MemoryError) and not any(name in text for name in named):
            raise
        raise LiditError(
            f"images of {size[1]}x{size[0]} pixels do not fit into the memory of "
            f"{jax.devices()[0].device_kind}: draw smaller ones, fewer at once, or split the model "
            "over several devices"
        ) from error
