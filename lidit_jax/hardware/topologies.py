"""TPU slices and GPU nodes by name, with the performance of their devices.

Figures: https://cloud.google.com/tpu/docs/system-architecture-tpu-vm,
https://jax-ml.github.io/scaling-book (links and data-center network), and NVIDIA's data sheets.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from lidit_jax.errors import LiditError

GIB = 2**30


@dataclass(frozen=True)
class Generation:
    """Specifications of a JAX device (usually one chip), its links and slices."""

    name: str
    flops: float
    """Peak bfloat16 FLOPs per second."""
    memory: float
    """Usable HBM in bytes, as counted by the compiler."""
    bandwidth: float
    """HBM bandwidth in bytes per second."""
    link: float
    """Bytes per second of one ICI link in one direction, with two links per torus axis; for a GPU,
    its total outgoing NVLink bandwidth."""
    axes: int
    """Number of torus axes: 2 or 3; 0 for GPUs, which are fully connected within a node."""
    network: float
    """Bytes per second to other slices or nodes: the device's share of its host's network."""
    largest: int
    """Number of chips of the largest slice."""
    matrix_side: int = 128
    """Rows and columns of the matrix unit."""
    sustained: float = 1.0
    """Share of the peak that large matrix products sustain: GPUs lower their clock."""
    devices_a_chip: int = 1
    hides_sums: bool = False
    """Whether gradient reductions overlap with other work: in compiled programs they do on tpu7x,
    on its SparseCores, and on no earlier TPU. Assumed for GPUs."""
    lanes: int = 128
    """Channels to which attention outputs are padded in memory; not padded in compiled programs of
    tpu7x, whose lanes hold tokens."""

    @property
    def is_gpu(self) -> bool:
        """Whether this is a GPU."""
        return self.axes == 0


GENERATIONS = {
    generation.name: generation
    for generation in (
        Generation("v4", 275e12, 31.75 * GIB, 1.23e12, 45e9, 3, 6.25e9, 4096),
        Generation("v5e", 197e12, 15.75 * GIB, 0.82e12, 45e9, 2, 3.125e9, 256),
        Generation("v5p", 459e12, 95.74 * GIB, 2.765e12, 90e9, 3, 6.25e9, 6144),
        Generation("v6e", 918e12, 31.25 * GIB, 1.64e12, 90e9, 2, 12.5e9, 256, 256),
        # A chip of this generation is two JAX devices, which share its links.
        Generation(
            *("tpu7x", 1153.5e12, 94.75 * GIB, 3.7e12, 45e9, 3, 6.25e9, 9216, 256),
            devices_a_chip=2,
            hides_sums=True,
            lanes=1,
        ),
        # 90% of the memory (`xla_flags`), one 400 Gb/s adapter per GPU, and 80% of the peak, which
        # the best matrix product reaches (github.com/stas00/ml-engineering, MAMF table).
        Generation(
            *("h100", 989e12, 71.6 * GIB, 3.35e12, 450e9, 0, 50e9, 4096, 16, 0.8),
            hides_sums=True,
            lanes=1,
        ),
        Generation(
            *("h200", 989e12, 126.3 * GIB, 4.8e12, 450e9, 0, 50e9, 4096, 16, 0.8),
            hides_sums=True,
            lanes=1,
        ),
    )
}
_FLAT_SHAPES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_SMALL_SIDES = ((1, 1, 1), (1, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
GPUS_A_NODE = (1, 2, 4, 8)
"""Possible numbers of GPUs per node."""


@dataclass(frozen=True)
class Topology:
    """One or several equal TPU slices, or GPU nodes."""

    generation: Generation
    shape: tuple[int, ...]
    """Sides of a slice; or GPUs per node and number of nodes."""
    slices: int = 1

    @property
    def chips(self) -> int:
        """Number of chips in all slices."""
        return math.prod(self.shape) * self.slices

    @property
    def devices(self) -> int:
        """Number of JAX devices in all slices."""
        return self.chips * self.generation.devices_a_chip

    @property
    def name(self) -> str:
        """Name such as "v5p:4x4x8", as in libtpu; "2 x v5p:4x4x8" for two slices."""
        one = f"{self.generation.name}:{'x'.join(map(str, self.shape))}"
        return one if self.slices == 1 else f"{self.slices} x {one}"

    @property
    def fast_bandwidth(self) -> float:
        """Outgoing bytes per second of a device along one torus axis, in both directions; or within
        a GPU node."""
        return self.generation.link if self.generation.is_gpu else self._torus_bandwidth(1)

    def wide_bandwidth(self, used: int) -> float:
        """Return outgoing bytes per second of a device across a whole slice, without the `used`
        torus axes; or across all GPU nodes."""
        chip = self.generation
        if not chip.is_gpu:
            return self._torus_bandwidth(max(chip.axes - used, 1))
        # Data that enters a node is spread over its adapters and then moves over NVLink.
        return chip.link if self.shape[1] == 1 else min(chip.link, chip.network * self.shape[0])

    def _torus_bandwidth(self, axes: int) -> float:
        """Return outgoing bytes per second; a side without wrap-around has half a ring's speed."""
        sides = sorted(self.shape, reverse=True)[:axes]
        rates = (2.0 if self._wraps(side) else 1.0 for side in sides if side > 1)
        return max(sum(rates), 1.0) * self.generation.link

    def _wraps(self, side: int) -> bool:
        return side % 4 == 0 if self.generation.axes == 3 else side == 16


def parse_topology(text: str, slices: int = 1) -> Topology:
    """Parse a topology name: "v5p:8x8x16", or "h100:8x4" for four nodes of eight GPUs.

    Raises:
      LiditError: for an unknown generation or a shape that does not exist; names the nearest.
    """
    name, _, sides = text.partition(":")
    generation = GENERATIONS.get(name)
    if generation is None:
        raise LiditError(
            f"--topology={text}: unknown chip {name!r}, known are {', '.join(GENERATIONS)} "
            "(write v5p:4x4x8, the sides of the slice, or h100:8x4 for 4 nodes of 8 GPUs)"
        )
    try:
        shape = tuple(int(side) for side in sides.split("x"))
    except ValueError:
        shape = ()
    if generation.is_gpu:
        return _gpu_nodes(text, generation, shape, slices)
    known = slice_shapes(generation)
    if tuple(sorted(shape)) not in {tuple(sorted(s)) for s in known}:
        chips = max(math.prod(shape), 1)
        nearest = min(known, key=lambda s: (abs(math.log(math.prod(s) / chips)), max(s)))
        raise LiditError(
            f"--topology={text}: no {name} slice has this shape, the nearest is "
            f"{name}:{'x'.join(map(str, nearest))} with {math.prod(nearest)} chips"
        )
    return Topology(generation, shape, slices)


def _gpu_nodes(text: str, generation: Generation, shape: tuple[int, ...], slices: int) -> Topology:
    if slices > 1:
        raise LiditError(
            f"--slices={slices}: GPUs form nodes, not slices: write {generation.name}:8xNODES"
        )
    if len(shape) != 2 or shape[0] not in GPUS_A_NODE or shape[1] < 1:
        raise LiditError(
            f"--topology={text}: write {generation.name}:GPUSxNODES with "
            f"{', '.join(map(str, GPUS_A_NODE))} GPUs per node, such as {generation.name}:8x4"
        )
    return Topology(generation, shape)


def slice_shapes(generation: Generation) -> list[tuple[int, ...]]:
    """Return the sides of every existing TPU slice of a generation."""
    if generation.axes == 2:
        return list(_FLAT_SHAPES)
    cubes = itertools.combinations_with_replacement(range(4, 29, 4), 3)
    large = [sides for sides in cubes if math.prod(sides) <= generation.largest]
    return [*_SMALL_SIDES, *large]


def larger_topologies(topology: Topology) -> list[Topology]:
    """Return topologies of the same generation with more chips, in powers of two, ascending."""
    chip, chips = topology.generation, math.prod(topology.shape)
    if chip.is_gpu:
        gpus, nodes = topology.shape
        shapes = [(gpus, nodes * 2**i) for i in range(1, 8)]
    else:
        by_size: dict[int, tuple[int, ...]] = {}
        for shape in sorted(slice_shapes(chip), key=max):
            by_size.setdefault(math.prod(shape), shape)
        shapes = [by_size[n] for n in sorted(by_size) if n > chips and n & (n - 1) == 0]
    return [Topology(chip, shape, topology.slices) for shape in shapes]
