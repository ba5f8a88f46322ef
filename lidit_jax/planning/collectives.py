"""Collectives of a compiled program by mesh axis, parsed from its HLO text."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

from lidit_jax.planning.hlo import (
    ASYNC_CALLS,
    COLLECTIVES,
    Computation,
    Instruction,
    Program,
    parse_program,
)
from lidit_jax.planning.hlo_cost import executions

_NAMED_GROUPS = re.compile(
    r"replica_groups=mesh\[([^\]]*)\]"
    r"(?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? ?\{([^}]*)\}"
)
_SUM_AND_SLICE = "all-reduce-scatter"
"""libtpu's name for a fused all-reduce and slice, which is a reduce-scatter."""
_BETWEEN_SLICES = "xla_megascale_runtime"
"""Attribute of transfers to other slices, which go through the hosts."""
_COMPUTES = ("fusion", "dot", "convolution", "custom-call", "while")


@dataclass(frozen=True)
class Collective:
    """One collective operation in the HLO text."""

    kind: str
    axes: frozenset[str]
    """Mesh axes along which the devices of a group differ; empty where the text has no groups."""
    size: float
    """Bytes of the result on one device; of the input for a reduce-scatter and a send."""
    times: float
    """Number of times it runs per execution of the program."""
    overlaps: bool
    """Whether other work is scheduled between its start and its end."""
    in_loop: bool
    """Whether it runs inside a `while`, such as the scan over layers."""
    source: str
    """Name of the traced operation that it comes from."""


@dataclass(frozen=True)
class Traffic:
    """Sum of all collectives of one kind over the same axes, per execution of the program."""

    kind: str
    axes: tuple[str, ...]
    times: float
    bytes: float
    overlapping_bytes: float


def find_collectives(program: str | Program, mesh: Mesh) -> list[Collective]:
    """List the collectives in a compiled program (`compiled.as_text()`)."""
    program = parse_program(program) if isinstance(program, str) else program
    times, loops, _ = executions(program)
    looped = _reachable(set(loops), program)
    wrapped = _overlapping_wrappers(program)
    parts = [computation.chain_part for computation in program.computations.values()]
    beside_work = {part.chain for part in parts if part and part.role == "step"}
    found = []
    for name, computation in program.computations.items():
        part = computation.chain_part
        if part and part.role != "start":
            continue  # counted where it starts
        for instruction in computation.instructions.values():
            sent = _sent(instruction, computation, mesh) if times[name] else None
            if sent is None:
                continue
            done = _end(instruction, computation)
            found.append(
                Collective(
                    *sent,
                    times[name],
                    name in wrapped
                    or bool(part and part.chain in beside_work)
                    or _overlaps(instruction, done, computation),
                    name in looped,
                    instruction.source,
                )
            )
    return found


def _sent(
    instruction: Instruction, inside: Computation, mesh: Mesh
) -> tuple[str, frozenset[str], float] | None:
    """Return kind, axes and bytes of a collective; None for any other instruction."""
    if instruction.opcode == "send" and _BETWEEN_SLICES in instruction.attributes:
        return "send", frozenset({"replica"}), instruction.arrays[0].bytes
    kind = instruction.opcode.removesuffix("-start")
    if kind not in COLLECTIVES or _alone(instruction):
        return None
    measured = [_end(instruction, inside) or instruction]
    if kind == "reduce-scatter":
        measured = [inside.instructions[operand] for operand in instruction.operands]
    elif inside.name.startswith(_SUM_AND_SLICE):
        kind = "reduce-scatter"
    size = sum(array.bytes for one in measured for array in one.arrays)
    return kind, _axes(instruction.attributes, mesh), size


def traffic(collectives: Iterable[Collective]) -> list[Traffic]:
    """Sum collectives by kind and axes, the largest first."""
    sums: dict[tuple, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for one in collectives:
        entry = sums[one.kind, tuple(sorted(one.axes))]
        entry[0] += one.times
        entry[1] += one.times * one.size
        entry[2] += one.times * one.size * one.overlaps
    rows = [Traffic(*key, *values) for key, values in sums.items()]
    return sorted(rows, key=lambda row: -row.bytes)


def _end(start: Instruction, inside: Computation) -> Instruction | None:
    """Return the instruction that waits for an asynchronous one; None for a synchronous one."""
    if start.opcode != "send" and not start.opcode.endswith("-start"):
        return None
    ends = (i for i in inside.instructions.values() if i.opcode.endswith("-done"))
    return next((i for i in ends if start.name in i.operands), None)


def _overlaps(start: Instruction, done: Instruction | None, inside: Computation) -> bool:
    if done is None:
        return False
    names = list(inside.instructions)
    between = names[names.index(start.name) + 1 : names.index(done.name)]
    return any(inside.instructions[name].opcode in _COMPUTES for name in between)


def _overlapping_wrappers(program: Program) -> set[str]:
    """Return the computations that run asynchronously beside other work of their caller."""
    wrapped = set()
    for computation in program.computations.values():
        for instruction in computation.instructions.values():
            if instruction.opcode in ASYNC_CALLS and _overlaps(
                instruction, _end(instruction, computation), computation
            ):
                wrapped.update(instruction.called)
    return _reachable(wrapped, program)


def _reachable(start: set[str], program: Program) -> set[str]:
    reached, waiting = set(), list(start)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            instructions = program.computations[name].instructions.values()
            waiting.extend(called for i in instructions for called in i.called)
    return reached


def _alone(collective: Instruction) -> bool:
    """Return whether every group has one device, so that nothing is sent."""
    members = _first_group(collective.attributes)
    return members is not None and members.size == 1


def _axes(attributes: str, mesh: Mesh) -> frozenset[str]:
    """Return the mesh axes of the first group (all groups of one operation are alike), or those
    along which a permutation sends data."""
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", attributes):
        ends = [[int(n) for n in pair] for pair in re.findall(r"(\d+),(\d+)", pairs[1])]
        places = np.array(np.unravel_index(np.array(ends), mesh.devices.shape))
        moved = (places[:, :, 0] != places[:, :, 1]).any(axis=1)
        return frozenset(name for name, m in zip(mesh.axis_names, moved, strict=True) if m)
    members = _first_group(attributes)
    if members is None:
        return frozenset()
    places = np.unravel_index(members, mesh.devices.shape)
    return frozenset(
        name for name, place in zip(mesh.axis_names, places, strict=True) if np.ptp(place)
    )


def _first_group(line: str) -> np.ndarray | None:
    """Parse the first group as device numbers in mesh order; XLA has three notations for groups."""
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
    if named := _NAMED_GROUPS.search(line):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        numbers = np.arange(np.prod(list(sizes.values())))
        if named[2]:
            numbers = numbers.reshape([int(n) for n in named[2].split(",")])
        if named[3]:
            numbers = numbers.transpose([int(n) for n in named[3].split(",")])
        numbers = numbers.reshape(list(sizes.values()))
        chosen = re.findall(r"'(\w+)'", named[4])
        return numbers[tuple(slice(None) if n in chosen else 0 for n in sizes)].ravel()
    return None
