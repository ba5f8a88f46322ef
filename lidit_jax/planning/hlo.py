"""Parser of a compiled program's HLO text (`compiled.as_text()`) into instructions.

The grammar is XLA's HLO text: https://openxla.org/xla/hlo_to_stablehlo (its printer has no other
specification than its parser). Only what counting needs is kept.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass, field
from typing import Literal

from lidit_jax.errors import LiditError

COLLECTIVES = (
    *("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute"),
    "ragged-all-to-all",
)
"""Opcodes of collectives; asynchronous ones add `-start` and `-done`."""
ASYNC_CALLS = ("async-start", "call-start")
"""Opcodes that run a computation asynchronously: a collective, or a SparseCore's work."""
_ITEM_BYTES = {
    **{"token": 0, "pred": 1, "s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1, "s4": 0.5, "u4": 0.5},
    **{"bf16": 2, "f16": 2, "s16": 2, "u16": 2},
    **{"s64": 8, "u64": 8, "f64": 8, "c64": 8},
}
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
    r"|(?:branch_computations|called_computations)=\{([^}]*)\}"
)
_CHAIN = re.compile(r'chain_id="(\d+)"')
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")


@dataclass(frozen=True)
class ArrayType:
    """One array of a result's type."""

    dtype: str
    sizes: tuple[int, ...]
    in_hbm: bool = True
    """Whether it is in HBM, not in a core's own memory (a layout with `S(1)` and so on)."""

    @property
    def bytes(self) -> float:
        """Size in bytes, without padding."""
        return math.prod(self.sizes) * _ITEM_BYTES.get(self.dtype, 4)


@dataclass(frozen=True)
class Instruction:
    """One instruction of a computation."""

    name: str
    opcode: str
    type_text: str
    operands: tuple[str, ...]
    """Names of the operands, in the same computation."""
    argument: str
    """Text between the parentheses: a constant's value, a parameter's number."""
    attributes: str
    root: bool

    @functools.cached_property
    def arrays(self) -> tuple[ArrayType, ...]:
        """Arrays of the result."""
        return tuple(
            ArrayType(
                kind,
                tuple(int(n) for n in sizes.split(",") if n),
                in_hbm="S(" not in (layout or ""),
            )
            for kind, sizes, layout in _ARRAY.findall(self.type_text)
        )

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that it calls, in order."""
        names = []
        for one, several in _CALLED.findall(self.attributes):
            names += [one] if one else re.findall(r"%?([\w.\-]+)", several)
        return tuple(names)

    def named(self, attribute: str) -> str:
        """Return the name of the computation in an attribute, such as `body`."""
        return self.attribute(rf"\b{attribute}=%?([\w.\-]+)")[1]

    def attribute(self, pattern: str) -> re.Match[str]:
        """Match an attribute that all instructions of this opcode have.

        Raises:
          LiditError: when this one has no attribute that fits the pattern.
        """
        found = re.search(pattern, self.attributes)
        if found is None:
            raise LiditError(
                f"{self.opcode} {self.name} of the compiled program has no attribute {pattern}: "
                "install the version of jax that lidit-jax requires"
            )
        return found

    @property
    def source(self) -> str:
        """Name of the traced operation that it comes from."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""


@dataclass(frozen=True)
class ChainPart:
    """Part of a collective that libtpu splits over several fusions."""

    chain: str
    """Number of the collective, the same in all parts."""
    role: Literal["start", "step", "done"]
    """Position among the parts: steps run beside the work of their fusion."""


@dataclass
class Computation:
    """Instructions in the order of the text, which in a scheduled program is execution order."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)

    @functools.cached_property
    def chain_part(self) -> ChainPart | None:
        """Part of a split collective in this computation, or None."""
        chain, role = None, "step"
        for instruction in self.instructions.values():
            if found := _CHAIN.search(instruction.attributes):
                chain = found[1]
            elif '"AsyncCollectiveStart"' in instruction.attributes:
                role = "start"
            elif '"AsyncCollectiveDone"' in instruction.attributes:
                role = "done"
        return None if chain is None else ChainPart(chain, role)

    @functools.cached_property
    def readers(self) -> dict[str, list[Instruction]]:
        """Instructions that take each result as an operand, by its name."""
        readers: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for name in dict.fromkeys(instruction.operands):
                if name in readers:
                    readers[name].append(instruction)
        return readers

    @property
    def root(self) -> Instruction:
        """Instruction that gives the computation's result."""
        return next(i for i in self.instructions.values() if i.root)


@dataclass(frozen=True)
class Program:
    """Computations of a program by name, each before its callers."""

    computations: dict[str, Computation]
    entry: str


def parse_program(text: str) -> Program:
    """Parse the HLO text of a compiled program.

    Raises:
      ValueError: when the text has no entry computation.
    """
    computations: dict[str, Computation] = {}
    current, entry = None, None
    for line in text.splitlines():
        if current is None:
            if start := _COMPUTATION.match(line):
                current = computations[start[2]] = Computation(start[2])
                entry = start[2] if start[1] else entry
        elif line == "}" or line.startswith("}, execution_thread="):
            current = None
        elif found := _INSTRUCTION.match(line):
            argument, attributes = _split_at_closing(found[5])
            current.instructions[found[2]] = Instruction(
                name=found[2],
                opcode=found[4],
                type_text=found[3],
                operands=tuple(re.findall(r"%([\w.\-]+)", argument)),
                argument=argument,
                attributes=attributes,
                root=bool(found[1]),
            )
    if entry is None:
        raise ValueError("no ENTRY computation: this is not the text of a compiled program")
    return Program(computations, entry)


def _split_at_closing(text: str) -> tuple[str, str]:
    """Split a text before and after the parenthesis that closes an operand list."""
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[:place], text[place + 1 :]
    return text, ""
