"""Cloud names of TPU slices and GPU nodes, such as v5p-256, v5litepod-64 and 8xh100.

Counts and shapes: https://cloud.google.com/tpu/docs/v5p and the pages of the other generations;
tpu7x as in XPK (https://github.com/AI-Hypercomputer/xpk).
"""

from __future__ import annotations

import difflib
import math
import re

from lidit_jax.errors import LiditError
from lidit_jax.hardware.topologies import (
    GENERATIONS,
    GPUS_A_NODE,
    Generation,
    parse_topology,
    slice_shapes,
)

_OTHER_NAMES = {"v5litepod": "v5e", "v5lite": "v5e", "v7x": "tpu7x"}
_CORES_A_CHIP = {"v4": 2, "v5p": 2, "tpu7x": 2}
"""Cores per chip of generations whose cloud names count TensorCores; the others count chips."""
_NAME_THEN_COUNT = re.compile(r"(?P<chip>[a-z]+\d*[a-z]*)(?P<mark>[-:x])(?P<count>\d+)")
_COUNT_THEN_NAME = re.compile(r"(?P<count>\d+)(?P<mark>x)(?P<chip>[a-z]+\d*[a-z]*)")


def standard_name(text: str) -> str:
    """Convert a cloud name that counts chips, cores or GPUs to a name for `parse_topology`.

    Args:
      text: "v5p-256" (256 TensorCores, so "v5p:4x4x8"), "v5e-64" or "v5litepod-64" (64 chips,
        "v5e:8x8"), "h100:8", "h100x8" or "8xh100" (one node, "h100:8x1"). A name that gives sides,
        such as "v5p:4x4x8", is returned unchanged.

    Raises:
      LiditError: for a number that no slice or set of nodes has, or that is ambiguous; names the
        nearest that exist.
    """
    written = "".join(text.lower().split())
    found = _NAME_THEN_COUNT.fullmatch(written) or _COUNT_THEN_NAME.fullmatch(written)
    if not found:
        return _with_known_chip(text, written)
    chip, count = _OTHER_NAMES.get(found["chip"], found["chip"]), int(found["count"])
    if chip not in GENERATIONS:
        raise LiditError(f"--topology={text}: {_unknown(chip, count)}")
    generation = GENERATIONS[chip]
    if generation.is_gpu:
        return _nodes_of(text, chip, count)
    if chip in _CORES_A_CHIP and found["mark"] != "-":
        raise LiditError(
            f"--topology={text}: {count} chips or {count} cores? Write the sides of the slice, "
            f"such as {chip}:{_sides(_nearest(generation, count)[0])}, or the cloud's name, "
            f"{_cloud_name(chip, _nearest(generation, count / _CORES_A_CHIP[chip])[0])}"
        )
    chips = count / _CORES_A_CHIP.get(chip, 1)
    nearest = _nearest(generation, chips)
    if math.prod(nearest[0]) != chips:
        known = " and ".join(
            f"{_cloud_name(chip, shape)} ({_counted(math.prod(shape), 'chip')}, "
            f"{chip}:{_sides(shape)})"
            for shape in nearest
        )
        raise LiditError(
            f"--topology={text}: no {chip} slice has {chips:g} chips; nearest: {known}"
        )
    return f"{chip}:{_sides(nearest[0])}"


def describe_topology_name(text: str, name: str) -> str:
    """Describe a parsed name in one line: "v5p-256: 128 chips, v5p:4x4x8"."""
    topology = parse_topology(name)
    unit = "GPU" if topology.generation.is_gpu else "chip"
    return f"{text}: {_counted(topology.chips, unit)}, {name}"


def _with_known_chip(text: str, written: str) -> str:
    """Return a name with sides unchanged except for the chip, spelled as in `GENERATIONS`."""
    chip, colon, sides = written.partition(":")
    chip = _OTHER_NAMES.get(chip, chip)
    return f"{chip}{colon}{sides}" if chip in GENERATIONS else text


def _nodes_of(text: str, chip: str, gpus: int) -> str:
    """Return the name of one node, or of as many full nodes as the GPUs fill."""
    full = max(GPUS_A_NODE)
    if gpus in GPUS_A_NODE:
        return f"{chip}:{gpus}x1"
    if gpus and gpus % full == 0:
        return f"{chip}:{full}x{gpus // full}"
    if gpus < full:
        fewer = max((size for size in GPUS_A_NODE if size < gpus), default=GPUS_A_NODE[0])
        more = min(size for size in GPUS_A_NODE if size > gpus)
        near = [f"{chip}:{size}x1" for size in sorted({fewer, more})]
    else:
        near = [f"{chip}:{full}x{nodes}" for nodes in (gpus // full, gpus // full + 1)]
    raise LiditError(
        f"--topology={text}: {gpus} GPUs do not fill nodes of {', '.join(map(str, GPUS_A_NODE))}; "
        f"nearest: {' and '.join(near)} (GPUs per node, and nodes)"
    )


def _nearest(generation: Generation, chips: float) -> list[tuple[int, ...]]:
    """Return the standard slice of `chips` chips, else the nearest one below and above."""
    standard: dict[int, tuple[int, ...]] = {}
    for shape in sorted(slice_shapes(generation), key=lambda sides: (max(sides), sum(sides))):
        standard.setdefault(math.prod(shape), shape)
    if chips in standard:
        return [standard[int(chips)]]
    below = [size for size in standard if size < chips]
    above = [size for size in standard if size > chips]
    return [standard[size] for size in (*sorted(below)[-1:], *sorted(above)[:1])]


def _cloud_name(chip: str, shape: tuple[int, ...]) -> str:
    return f"{chip}-{math.prod(shape) * _CORES_A_CHIP.get(chip, 1)}"


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' if number > 1 else ''}"


def _unknown(chip: str, count: int) -> str:
    """Return the error message for an unknown chip, with suggestions."""
    close = difflib.get_close_matches(chip, GENERATIONS, n=3, cutoff=0.5)
    examples = " or ".join(f"{name}-{count}" for name in close)
    hint = f": did you mean {examples}?" if close else ""
    return f"unknown chip {chip!r}, known are {', '.join(GENERATIONS)}{hint}"
