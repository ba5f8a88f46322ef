"""A plan checked by the TPU compiler: memory, operations, bytes, collectives, program size."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lidit_jax.config.schema import Config, MeshConfig
from lidit_jax.errors import LiditError
from lidit_jax.hardware.topologies import Topology
from lidit_jax.hardware.xla_flags import FLAGS
from lidit_jax.parallel.mesh import AXES, make_mesh
from lidit_jax.planning.ahead_of_time import lower_train_step, topology_devices
from lidit_jax.planning.collectives import Traffic, find_collectives, traffic
from lidit_jax.planning.hlo import parse_program
from lidit_jax.planning.hlo_cost import program_cost
from lidit_jax.planning.plan import Plan


class CompilerRefusalError(LiditError):
    """Error for a program that the TPU compiler rejects, for lack of memory or another reason."""


@dataclass(frozen=True)
class CompiledPlan:
    """Figures of one device's compiled program."""

    arguments: float
    """Bytes of weights, EMA weights, optimizer moments and batch."""
    temporaries: float
    flops: float
    """Operations per step of matrix products and splash kernels, with recomputation and padding."""
    hbm_bytes: float
    """Bytes of HBM read and written per step."""
    collectives: tuple[Traffic, ...]
    uncounted: tuple[str, ...]
    """Loops and kernels whose cost could not be read from the HLO text."""
    seconds: float
    """Seconds that compiling took on this machine."""
    program_bytes: int
    """Bytes of the program's HLO text."""

    @property
    def total(self) -> float:
        """Bytes per device: arguments and temporaries."""
        return self.arguments + self.temporaries

    def waiting_seconds(self, topology: Topology) -> float:
        """Seconds per step of collectives that overlap with no other work, at the full speed of the
        links; an all-reduce crosses them twice."""
        seconds = 0.0
        for row in self.collectives:
            crossings = 2 if row.kind == "all-reduce" else 1
            within = topology.wide_bandwidth(0)
            speed = topology.generation.network if "replica" in row.axes else within
            seconds += crossings * (row.bytes - row.overlapping_bytes) / speed
        return seconds


def compiled_plan_from_json(facts: dict[str, Any]) -> CompiledPlan:
    """Read the figures from the JSON of `lidit plan --compile`."""
    known = {field.name: facts[field.name] for field in dataclasses.fields(CompiledPlan)}
    sent = tuple(Traffic(**row | {"axes": tuple(row["axes"])}) for row in known["collectives"])
    return CompiledPlan(**known | {"collectives": sent, "uncounted": tuple(known["uncounted"])})


def compile_plan(config: Config, plan: Plan, hlo: Path | None = None) -> CompiledPlan:
    """Compile the training step for the plan's topology, with the flags of its TPU generation.

    Args:
      config: the run, with the plan's policy and parts.
      plan: its topology, mesh and text.
      hlo: file for the text of the compiled program.

    Raises:
      CompilerRefusalError: when the TPU compiler rejects the program.
      LiditError: for GPUs and v4, and without libtpu.
    """
    topology = plan.topology
    if topology.generation.is_gpu:
        raise LiditError(
            f"--compile: {topology.name} has no compiler without such a GPU: its plans "
            "are by formula"
        )
    devices = topology_devices(dataclasses.replace(topology, slices=1).name, topology.slices)
    if len(devices) != topology.devices:
        raise LiditError(
            f"--compile: without a TPU the cores of a chip of {topology.name} cannot be joined: "
            "its plans are by formula"
        )
    mesh = make_mesh(MeshConfig(**{axis: getattr(plan.split, axis) for axis in AXES}), devices)
    lowered = lower_train_step(config, mesh, plan.text.streams)
    start = time.perf_counter()
    try:
        compiled = lowered.compile(compiler_options=_options(topology.generation.name))
    except Exception as error:  # the plugin's errors have no common type
        reason = " ".join(str(error).split())[:300]
        raise CompilerRefusalError(f"the TPU compiler rejects this plan: {reason}") from error
    seconds = time.perf_counter() - start
    memory, text = compiled.memory_analysis(), compiled.as_text()
    if memory is None or text is None:
        raise LiditError(
            "--compile: libtpu does not report the memory of its program: pip install -U libtpu"
        )
    if hlo is not None:
        hlo.write_text(text)
    program = parse_program(text)
    cost = program_cost(program)
    return CompiledPlan(
        arguments=float(memory.argument_size_in_bytes),
        temporaries=float(memory.temp_size_in_bytes),
        flops=cost.flops,
        hbm_bytes=cost.bytes,
        collectives=tuple(traffic(find_collectives(program, mesh))),
        uncounted=cost.unknown,
        seconds=seconds,
        program_bytes=len(text),
    )


def _options(generation: str) -> dict[str, str | bool]:
    """Return the flags that `lidit train` sets on these chips, as compiler options."""
    return {
        setting.name.removeprefix("--"): setting.value
        for setting in FLAGS.get(generation, ())
        if setting.name.startswith("--xla")
    }
