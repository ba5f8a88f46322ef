"""Operations and HBM bytes of a compiled program, with loop bodies counted per iteration.

`compiled.cost_analysis()` counts the body of a loop once and a Pallas kernel as nothing. Here:

- a matrix product or convolution counts two operations for each multiply-add, padding and dilation
  left out, as XLA's own HloCostAnalysis does;
- a splash kernel counts the products that it runs on the lengths and head widths it is given,
  padding included: two forward, and five in the fused backward kernel, which computes the scores
  again (a training step needs four). A causal kernel is counted whole;
- element-wise work counts as bytes only: what each instruction reads and writes in HBM. A fusion
  that slices an operand reads the slice, an update in place writes the update, and what it only
  passes on costs nothing. What is fetched ahead into the chip's fast memory is read once, where the
  fetch begins, and so is a collective that is spread over several fusions.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from lidit_jax.planning.hlo import (
    ASYNC_CALLS,
    COLLECTIVES,
    ArrayType,
    Computation,
    Instruction,
    Program,
)

_KERNEL_PRODUCTS = {"fwd": 2, "dkv": 5, "dq": 3}
"""Products [N, K] x [K, S] per kernel; dkv is the fused one, which also computes dq."""
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional"),
    *("call", "after-all", "partition-id", "replica-id", "iota", *ASYNC_CALLS),
    *("async-done", "call-done"),
    *(
        "copy-done",
        "slice-done",
        "opt-barrier",
        "all-gather-done",
        "all-reduce-done",
        "send-done",
        "recv-done",
    ),
    *("collective-permute-done", "async-update"),
}
"""Opcodes that move no bytes themselves."""


@dataclass(frozen=True)
class ProgramCost:
    """Cost of one execution of a program on one device."""

    products: float
    """Operations of matrix products and convolutions."""
    kernels: float
    """Operations of splash kernels."""
    bytes: float
    """Bytes read and written in HBM."""
    loops: dict[str, int]
    """Iterations of each loop, by the name of its body."""
    unknown: tuple[str, ...]
    """Loops whose trip count is not in the text (counted once), and kernels other than splash
    (counted as nothing)."""

    @property
    def flops(self) -> float:
        """Operations of products and kernels."""
        return self.products + self.kernels


def program_cost(program: Program) -> ProgramCost:
    """Count the operations and bytes of one device's program."""
    times, loops, unknown = executions(program)
    fused = _fused(program)
    products = kernels = moved = 0.0
    for name, computation in program.computations.items():
        for instruction in computation.instructions.values():
            if instruction.opcode in ("dot", "convolution"):
                products += times[name] * _product_flops(instruction, computation)
            elif instruction.opcode == "custom-call" and "tpu_custom_call" in (
                instruction.attributes
            ):
                flops = _kernel_flops(instruction, computation)
                if flops is None:
                    unknown.append(f"kernel {instruction.name}")
                kernels += times[name] * (flops or 0.0)
            if name not in fused:
                moved += times[name] * _bytes(instruction, computation, program)
    return ProgramCost(products, kernels, moved, loops, tuple(unknown))


def executions(program: Program) -> tuple[dict[str, float], dict[str, int], list[str]]:
    """Return how often each computation runs, the iterations of each loop, and unknown loops.

    Both branches of a conditional are counted.
    """
    times: dict[str, float] = defaultdict(float, {program.entry: 1.0})
    loops, unknown = {}, []
    # Callers come after what they call, so in reverse order every count is complete when used.
    for name in reversed(program.computations):
        for instruction in program.computations[name].instructions.values():
            turns = 1
            if instruction.opcode == "while":
                known = trip_count(instruction, program.computations[name], program)
                turns = 1 if known is None else known
                body = instruction.named("body")
                loops[body] = turns
                if known is None:
                    unknown.append(f"loop {body}")
            for called in instruction.called:
                times[called] += times[name] * turns
    return times, loops, unknown


def trip_count(loop: Instruction, inside: Computation, program: Program) -> int | None:
    """Return a loop's trip count, from XLA's annotation or from "counter < constant"."""
    if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes):
        return int(noted[1])
    condition = program.computations[loop.named("condition")]
    compare = next((i for i in condition.instructions.values() if i.opcode == "compare"), None)
    if compare is None or "direction=LT" not in compare.attributes:
        return None
    start = inside.instructions.get(loop.operands[0])

    def value(name: str) -> int | None:
        found = condition.instructions[name]
        if found.opcode == "get-tuple-element" and start is not None and start.opcode == "tuple":
            place = int(found.attribute(r"index=(\d+)")[1])
            found = inside.instructions[start.operands[place]]
        return int(found.argument) if found.opcode == "constant" else None

    first, last = (value(name) for name in compare.operands)
    # JAX's own loops count from 0 by 1; the compiler may hide the 0 behind a copy.
    return None if last is None else last - (first or 0)


def _product_flops(product: Instruction, inside: Computation) -> float:
    out = math.prod(product.arrays[0].sizes)
    left, right = (_array(name, inside).sizes for name in product.operands[:2])
    if product.opcode == "dot":
        summed = product.attribute(r"lhs_contracting_dims=\{([\d,]*)\}")[1]
        return 2.0 * out * math.prod(left[int(n)] for n in summed.split(",") if n)
    return 2.0 * _convolution_products(product, left, right)


def _convolution_products(
    convolution: Instruction, left: tuple[int, ...], right: tuple[int, ...]
) -> float:
    """Count the multiply-adds of a convolution, without padding and dilation."""
    labels = convolution.attribute(r"dim_labels=(\w+)_(\w+)->(\w+)")
    of_left, of_right, of_out = labels.groups()
    out = convolution.arrays[0].sizes
    count = right[of_right.index("i")] * out[of_out.index("f")] * out[of_out.index("b")]
    window = re.search(r"window=\{([^}]*)\}", convolution.attributes)
    window = dict(part.split("=") for part in window[1].split()) if window else {}
    for axis in (letter for letter in of_out if letter.isdigit()):
        place = int(axis)

        def setting(name: str, default: str, place: int = place) -> str:
            return window[name].split("x")[place] if name in window else default

        low = int(setting("pad", "0_0").split("_")[0])
        stride, dilation = int(setting("stride", "1")), int(setting("rhs_dilate", "1"))
        holes, size = int(setting("lhs_dilate", "1")), left[of_left.index(axis)]
        starts = np.arange(out[of_out.index(axis)])[:, None] * stride - low
        places = starts + np.arange(right[of_right.index(axis)]) * dilation
        count *= np.count_nonzero((places >= 0) & (places % holes == 0) & (places // holes < size))
    return float(count)


def _kernel_flops(kernel: Instruction, inside: Computation) -> float | None:
    """Count a splash kernel's operations, from its first large operands q [..., H, N, K] and
    k [..., H, S, K]."""
    splash = re.match(r"splash_m[hq]a_(fwd|dkv|dq)", kernel.name)
    if splash is None:
        noted = re.search(r'"flops":"?(\d+)', kernel.attributes)
        return float(noted[1]) if noted else None
    operands = (_array(name, inside) for name in kernel.operands)
    floats = [a.sizes for a in operands if a.dtype in ("bf16", "f32") and len(a.sizes) >= 3]
    queries, keys = floats[0], floats[1]
    return 2.0 * _KERNEL_PRODUCTS[splash[1]] * math.prod(queries) * keys[-2]


def _bytes(instruction: Instruction, inside: Computation, program: Program) -> float:
    """Return the HBM traffic in bytes of an instruction outside of fusions."""
    if instruction.opcode in _FREE:
        return 0.0
    if instruction.opcode == "fusion":
        return _fusion_bytes(instruction, inside, program)
    read = [_array(name, inside) for name in instruction.operands if name in inside.instructions]
    written = _hbm(instruction.arrays)
    if instruction.opcode in ("copy-start", "slice-start"):
        # (copy, its source, context) and (source, slice, context).
        moved = instruction.arrays[instruction.opcode == "slice-start"]
        return moved.bytes * (moved.in_hbm + read[0].in_hbm)
    if instruction.opcode in ("dynamic-slice", "gather", "slice"):
        return 2 * written
    if instruction.opcode == "dynamic-update-slice":
        return 2 * _hbm(read[1:2])
    return written + _hbm(read)


def _fusion_bytes(fusion: Instruction, inside: Computation, program: Program) -> float:
    body = program.computations[fusion.called[0]]
    operands = [_array(name, inside) for name in fusion.operands]
    part = body.chain_part
    if part and part.role != "step":
        collective = next(i for i in body.instructions.values() if i.opcode in COLLECTIVES)
        return (part.role == "start") * (_hbm(collective.arrays) + _hbm(operands))
    read = sum(
        min(_read_inside(body, number, array, program), array.bytes)
        for number, array in enumerate(operands)
        if array.in_hbm
    )
    results = [body.root]
    if body.root.opcode == "tuple":
        results = [body.instructions[name] for name in body.root.operands]
    if len(results) != len(fusion.arrays):
        return read + _hbm(fusion.arrays)
    written = zip(results, fusion.arrays, strict=True)
    return read + sum(
        _written_inside(body, result, array, program) for result, array in written if array.in_hbm
    )


def _read_inside(body: Computation, number: int, array: ArrayType, program: Program) -> float:
    """Return the bytes that a fusion reads of an operand: only the slice, or none to update it."""
    parameter = next(
        i.name
        for i in body.instructions.values()
        if i.opcode == "parameter" and int(i.argument) == number
    )
    names, total = [parameter], 0.0
    for name in names:  # grows by aliases of the same bytes
        for user in body.readers[name]:
            if user.opcode in COLLECTIVES or (user.root and user.opcode == "tuple"):
                continue
            if user.opcode in ("dynamic-slice", "gather", "slice"):
                total += user.arrays[0].bytes
            elif user.opcode == "bitcast":
                names.append(user.name)
            elif user.opcode == "fusion":
                inner = program.computations[user.called[0]]
                places = (i for i, operand in enumerate(user.operands) if operand == name)
                total += sum(_read_inside(inner, i, array, program) for i in places)
            elif user.opcode != "dynamic-update-slice" or user.operands[0] != name:
                total += array.bytes
    return total


def _written_inside(
    body: Computation, result: Instruction, array: ArrayType, program: Program
) -> float:
    """Return the bytes that a fusion writes of one result: only the update if it is in place."""
    if result.opcode == "bitcast":
        return _written_inside(body, body.instructions[result.operands[0]], array, program)
    if result.opcode == "dynamic-update-slice":
        return _array(result.operands[1], body).bytes
    if result.opcode == "fusion" and len(result.arrays) == 1:
        inner = program.computations[result.called[0]]
        return _written_inside(inner, inner.root, array, program)
    return 0.0 if result.opcode in {*COLLECTIVES, "parameter"} else array.bytes


def _array(name: str, inside: Computation) -> ArrayType:
    arrays = inside.instructions[name].arrays
    return arrays[0] if arrays else ArrayType("token", (0,))


def _hbm(arrays: list[ArrayType] | tuple[ArrayType, ...]) -> float:
    return sum(array.bytes for array in arrays if array.in_hbm)


def _fused(program: Program) -> set[str]:
    """Return the computations inside other instructions: fusions, and the sums of reductions."""
    return {
        called
        for computation in program.computations.values()
        for instruction in computation.instructions.values()
        if instruction.opcode not in ("while", "conditional", "call", *ASYNC_CALLS)
        for called in instruction.called
    }
