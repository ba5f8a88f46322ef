"""How much of a model two frameworks can train at once on one device: its depth and its batch."""

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
"""Of a process on a GPU: libraries, kernels, workspaces."""
_STATE_BYTES = 22.0
"""Of PyTorch for a parameter: weight, average, two moments and gradient in float32, and the
bfloat16 copy that autocast makes."""
_PYTORCH_ACTIVATIONS = 1.4
"""Those of PyTorch over ours without recomputation; autocast keeps some of them in float32."""
_UNROLLED = 10
"""Most blocks that are unrolled, as PyTorch's are: a scan copies all that it keeps into stacked
arrays, in a step that is bound by memory, but compiles in the time of one block."""


@dataclass(frozen=True)
class Fit:
    """What is trained, and how much memory it is predicted to take."""

    depth: int
    whole_depth: int
    """Of the recipe."""
    batch: int
    jax_bytes: float
    """Bytes of our process, by the planner."""
    torch_bytes: float
    """Bytes of PyTorch's, by this module's rule; 0 where it takes no part."""

    @property
    def overrides(self) -> tuple[str, ...]:
        """Of the recipe, as the command line spells them."""
        unrolled = self.depth if self.depth <= _UNROLLED else 1
        return (f"model.depth={self.depth}", "model.remat=none", f"model.scan_unroll={unrolled}")

    @property
    def description(self) -> str:
        """What was cut down, and why."""
        cut = (
            f"{self.depth} of {self.whole_depth} blocks"
            if self.depth < self.whole_depth
            else f"all {self.depth} blocks"
        )
        beside = f" beside {self.torch_bytes / GIB:.1f} GiB of PyTorch" if self.torch_bytes else ""
        return (
            f"{cut}, {self.batch} images a step, nothing recomputed: predicted "
            f"{self.jax_bytes / GIB:.1f} GiB{beside}; chosen so that it fits, and compiles in time"
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
    """The largest batch, and with it the most blocks, that fit.

    Args:
      config: the recipe.
      streams: its text.
      memory: bytes of the device that programs may use.
      batches: to choose from, the best first.
      deepest: most blocks, for the time that PyTorch takes to compile each of them.
      shallowest: fewest blocks.
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
        f"{min(whole, shallowest)} blocks and {batches[-1]} images a step do not fit into "
        f"{memory / GIB:.1f} GiB: measure on a device with more memory"
    )


def _bytes(
    config: Config, streams: Sequence[TextStream], depth: int, batch: int
) -> tuple[float, float]:
    """Bytes that our process and PyTorch's take."""
    model = dataclasses.replace(config.model, depth=depth, remat="none")
    training = dataclasses.replace(config.training, batch_size=batch)
    cut = dataclasses.replace(config, model=model, training=training)
    predicted: Memory = estimate_memory(cut, Split(), config.image_tokens, streams)
    activations = _PYTORCH_ACTIVATIONS * (predicted.kept + predicted.working)
    held = _STATE_BYTES * parameter_count(cut, tuple(streams))
    return predicted.total + _CONTEXT, held + activations + _CONTEXT


def topology_of(kind: str) -> Topology | None:
    """One device of a kind as JAX spells it, for the planner; None where it knows no such kind."""
    if generation := tpu_generation(kind):
        sides = {"v5e": "1x1", "v6e": "1x1"}.get(generation, "1x1x1")
        return parse_topology(f"{generation}:{sides}")
    known = (name for name in ("h100", "h200") if name in kind.lower())
    return next((parse_topology(f"{name}:1x1") for name in known), None)


def planned(config: Config, kind: str) -> Plan | None:
    """What `lidit plan` says of a recipe on one device of a kind; None where it knows none."""
    topology = topology_of(kind)
    return make_plan(config, topology, Split()) if topology else None
