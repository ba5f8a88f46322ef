"""What a compiled program sends between devices: read from its text, by mesh axis."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

_KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
_ITEM_BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "s8": 1, "u8": 1, "pred": 1}


@dataclass(frozen=True)
class Collective:
    """One operation in the text; a scanned layer's stands for as many as there are layers."""

    kind: str
    axes: frozenset[str]
    """Mesh axes along which the devices of a group differ; empty where the text names none."""
    size: int
    """Bytes of the result on one device."""
    in_loop: bool
    """Whether it runs inside a `while`, such as the scan over layers."""
    source: str
    """Name of the operation that asked for it, from the traced program."""


def find_collectives(program: str, mesh: Mesh) -> list[Collective]:
    """All collectives in a compiled program's text (`compiled.as_text()`)."""
    found, calls, bodies, inside = [], defaultdict(set), set(), ""
    for line in program.splitlines():
        if start := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            inside = start[1]
            continue
        bodies.update(re.findall(r"body=%?([\w.\-]+)", line))
        calls[inside].update(
            re.findall(r"(?:calls|to_apply|body|called_computations=\{)=?%?([\w.\-]+)", line)
        )
        if operation := re.search(rf" = (.*?) ({_KINDS})(?:-start)?\(", line):
            source = re.search(r'op_name="([^"]*)"', line)
            found.append((inside, operation, line, source[1] if source else ""))
    looped = _reachable(bodies, calls)
    return [
        Collective(op[2], _axes(line, mesh), _bytes(op[1]), where in looped, source)
        for where, op, line, source in found
    ]


def _reachable(start: set[str], calls: dict[str, set[str]]) -> set[str]:
    reached, waiting = set(), list(start)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting.extend(calls[name])
    return reached


def _bytes(shapes: str) -> int:
    return sum(
        _ITEM_BYTES.get(kind, 4) * int(np.prod([int(n) for n in sizes.split(",") if n]))
        for kind, sizes in re.findall(r"(\w+)\[([\d,]*)\]", shapes)
    )


def _axes(line: str, mesh: Mesh) -> frozenset[str]:
    """The axes of the first group: all groups of one operation are alike."""
    members = _first_group(line)
    if members is None:
        return frozenset()
    places = np.unravel_index(members, mesh.devices.shape)
    return frozenset(
        name for name, place in zip(mesh.axis_names, places, strict=True) if np.ptp(place)
    )


def _first_group(line: str) -> np.ndarray | None:
    """Its devices as numbers in the mesh's order; XLA writes groups in three ways."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return np.array([int(n) for n in listed[1].split(",")])
    if counted := re.search(
        r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line
    ):
        shape = [int(n) for n in counted[3].split(",")]
        numbers = np.arange(np.prod(shape)).reshape(shape)
        if counted[4]:
            numbers = numbers.transpose([int(n) for n in counted[4].split(",")])
        return numbers.reshape(int(counted[1]), int(counted[2]))[0]
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", line):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        numbers = np.arange(np.prod(list(sizes.values()))).reshape(list(sizes.values()))
        chosen = re.findall(r"'(\w+)'", named[2])
        return numbers[tuple(slice(None) if n in chosen else 0 for n in sizes)].ravel()
    return None
