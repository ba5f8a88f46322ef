"""TPU slices by name, and what one of their chips can do.

Figures: https://cloud.google.com/tpu/docs/system-architecture-tpu-vm and
https://jax-ml.github.io/scaling-book (links and data-centre network).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from lidit_jax.errors import LiditError

GIB = 2**30


@dataclass(frozen=True)
class Generation:
    """One chip, its links, and the shapes of its slices."""

    name: str
    flops: float
    """Peak bfloat16 operations a second."""
    memory: float
    """Bytes of HBM that a program may use, as the compiler counts them."""
    bandwidth: float
    """Bytes a second of HBM."""
    link: float
    """Bytes a second of one ICI link in one direction; two links along each axis of the torus."""
    axes: int
    """Axes of the torus: 2 or 3."""
    network: float
    """Bytes a second to other slices, a chip's share of its host's network."""
    largest: int
    """Chips of the largest slice."""
    matrix_side: int = 128
    """Rows and columns of the matrix unit."""


GENERATIONS = {
    generation.name: generation
    for generation in (
        Generation("v4", 275e12, 31.75 * GIB, 1.23e12, 45e9, 3, 6.25e9, 4096),
        Generation("v5e", 197e12, 15.75 * GIB, 0.82e12, 45e9, 2, 3.125e9, 256),
        Generation("v5p", 459e12, 95.74 * GIB, 2.765e12, 90e9, 3, 6.25e9, 8960),
        Generation("v6e", 918e12, 31.25 * GIB, 1.64e12, 90e9, 2, 12.5e9, 256, 256),
        # A chip of this generation is two devices to JAX; these are the chip's figures.
        Generation("tpu7x", 2307e12, 189.5 * GIB, 7.4e12, 90e9, 3, 12.5e9, 9216, 256),
    )
}
_FLAT_SHAPES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_SMALL_SIDES = ((1, 1, 1), (1, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))


@dataclass(frozen=True)
class Topology:
    """One or several equal slices."""

    generation: Generation
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return math.prod(self.shape) * self.slices

    @property
    def name(self) -> str:
        """Such as "v5p:4x4x8", as libtpu spells it; "2 x v5p:4x4x8" for two slices."""
        one = f"{self.generation.name}:{'x'.join(map(str, self.shape))}"
        return one if self.slices == 1 else f"{self.slices} x {one}"

    def axis_bandwidth(self, torus_axes: int) -> float:
        """Bytes a second that leave a chip along so many axes of the torus, in both directions.

        A side of fewer than four chips has no wrap-around link, so rings run at half the speed.
        """
        sides = sorted(self.shape, reverse=True)[:torus_axes]
        rates = (2.0 if self._wraps(side) else 1.0 for side in sides if side > 1)
        return max(sum(rates), 1.0) * self.generation.link

    def _wraps(self, side: int) -> bool:
        return side % 4 == 0 if self.generation.axes == 3 else side == 16


def parse_topology(text: str, slices: int = 1) -> Topology:
    """The topology named "v5p:8x8x16".

    Raises:
      LiditError: for an unknown generation or a shape that is not built; names the nearest.
    """
    name, _, sides = text.partition(":")
    generation = GENERATIONS.get(name)
    if generation is None:
        raise LiditError(
            f"--topology={text}: unknown TPU {name!r}, know {', '.join(GENERATIONS)} "
            "(write v5p:4x4x8, the sides of the slice and not its number of cores)"
        )
    try:
        shape = tuple(int(side) for side in sides.split("x"))
    except ValueError:
        shape = ()
    known = _shapes(generation)
    if tuple(sorted(shape)) not in {tuple(sorted(s)) for s in known}:
        chips = max(math.prod(shape), 1)
        nearest = min(known, key=lambda s: (abs(math.log(math.prod(s) / chips)), max(s)))
        raise LiditError(
            f"--topology={text}: no {name} slice has this shape, the nearest is "
            f"{name}:{'x'.join(map(str, nearest))} with {math.prod(nearest)} chips"
        )
    return Topology(generation, shape, slices)


def _shapes(generation: Generation) -> list[tuple[int, ...]]:
    if generation.axes == 2:
        return list(_FLAT_SHAPES)
    cubes = itertools.combinations_with_replacement(range(4, 29, 4), 3)
    large = [sides for sides in cubes if math.prod(sides) <= generation.largest]
    return [*_SMALL_SIDES, *large]
