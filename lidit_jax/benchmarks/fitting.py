"""Search for the model depth and batch size at which JAX and PyTorch both fit on one device."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from lidit_jax.config.schema import Config
from lidit_jax.errors import LiditError
from lidit_jax.hardware.devices import tpu_generation
from lidit_jax.hardware.topologies import GIB, Topology, parse_topology
from lidit_jax.models.flops import TextStream
from lidit_jax.planning.memory import Memory, estimate_memory, parameter_count
from lidit_jax.planning.plan import Plan, make_plan
from lidit_jax.planning.roofline import Split

_CONTEXT = 1.5 * GIB
"""Bytes per process on a GPU for libraries, kernels and workspaces."""
_STATE_BYTES = 22.0
"""PyTorch's bytes per parameter: weight, average, two moments and gradient in float32, and the
bfloat16 copy that autocast makes."""
_PYTORCH_ACTIVATIONS = 1.4
"""Ratio of PyTorch's activations to ours without recomputation; autocast keeps some in float32."""
_UNROLLED = 10
"""Maximum number of blocks that are unrolled, as in PyTorch: a scan copies what it keeps into
stacked arrays, which slows a memory-bound step, but compiles in the time of one block."""


@dataclass(frozen=True)
class Fit:
    """Chosen depth and batch, and the memory that they are predicted to take."""

    depth: int
    whole_depth: int
    """Blocks of the recipe."""
    batch: int
    jax_bytes: float
    """Bytes of our process, predicted by the planner."""
    torch_bytes: float
    """Bytes of PyTorch's process, predicted by this module; 0 if it is not measured."""

    @property
    def overrides(self) -> tuple[str, ...]:
        """Overrides of the recipe, in command-line form."""
        unrolled = self.depth if self.depth <= _UNROLLED else 1
        return (f"model.depth={self.depth}", "model.remat=none", f"model.scan_unroll={unrolled}")

    @property
    def description(self) -> str:
        """Description of what was reduced, and why."""
        cut = (
            f"{self.depth} of {self.whole_depth} blocks"
            if self.depth < self.whole_depth
            else f"all {self.depth} blocks"
        )
        beside = f", plus {self.torch_bytes / GIB:.1f} GiB of PyTorch" if self.torch_bytes else ""
        return (
            f"{cut}, {self.batch} images per step, no rematerialization: predicted "
            f"{self.jax_bytes / GIB:.1f} GiB{beside}; chosen to fit and to compile in time"
        )


def fit(
    config: Config,
    streams: Sequence[TextStream],
    memory: float,
    batches: Sequence[int],
    *,
    deepest: int,
    shallowest: int = 4,
    beside_pytorch: bool = True,
) -> Fit:
    """Return the largest batch, and for it the most blocks, that fit into memory.

    Args:
      config: the recipe.
      streams: its text streams.
      memory: bytes of device memory that programs may use.
      batches: batch sizes to choose from, in order of preference.
      deepest: maximum number of blocks, as PyTorch's compile time grows with each.
      shallowest: minimum number of blocks.
      beside_pytorch: whether PyTorch trains on the device at the same time.

    Raises:
      LiditError: when not even the smallest choice fits.
    """
    whole = config.model.depth
    for batch in batches:
        for depth in range(min(whole, deepest), min(whole, shallowest) - 1, -1):
            jax_bytes, torch_bytes = _bytes(config, streams, depth, batch)
            torch_bytes = torch_bytes if beside_pytorch else 0.0
            if jax_bytes + torch_bytes <= memory:
                return Fit(depth, whole, batch, jax_bytes, torch_bytes)
    raise LiditError(
        f"{min(whole, shallowest)} blocks and {batches[-1]} images per step do not fit into "
        f"{memory / GIB:.1f} GiB: measure on a device with more memory"
    )


def _bytes(
    config: Config, streams: Sequence[TextStream], depth: int, batch: int
) -> tuple[float, float]:
    """Return the bytes that our process and PyTorch's take."""
    model = dataclasses.replace(config.model, depth=depth, remat="none")
    training = dataclasses.replace(config.training, batch_size=batch)
    cut = dataclasses.replace(config, model=model, training=training)
    predicted: Memory = estimate_memory(cut, Split(), config.image_tokens, streams)
    activations = _PYTORCH_ACTIVATIONS * (predicted.kept + predicted.working)
    held = _STATE_BYTES * parameter_count(cut, tuple(streams))
    return predicted.total + _CONTEXT, held + activations + _CONTEXT


def topology_of(kind: str) -> Topology | None:
    """Return a topology of one device of a JAX device kind; None if the planner lacks the kind."""
    if generation := tpu_generation(kind):
        sides = {"v5e": "1x1", "v6e": "1x1"}.get(generation, "1x1x1")
        return parse_topology(f"{generation}:{sides}")
    known = (name for name in ("h100", "h200") if name in kind.lower())
    return next((parse_topology(f"{name}:1x1") for name in known), None)


def planned(config: Config, kind: str) -> Plan | None:
    """Return the plan of a recipe on one device of a kind; None if the planner lacks the kind."""
    topology = topology_of(kind)
    return make_plan(config, topology, Split()) if topology else None
