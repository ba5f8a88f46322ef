"""Search for the fastest mesh, remat policy and gradient accumulation that fit in memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from lidit_jax.config.schema import Config
from lidit_jax.errors import LiditError
from lidit_jax.hardware.topologies import Topology, larger_topologies
from lidit_jax.planning.plan import Plan, make_plan
from lidit_jax.planning.roofline import RECOMPUTED, Split

_FREE_FRACTION = 0.1
"""Share of the HBM that the search leaves free."""
_PARTS = (1, 2, 4, 8, 16)
_LARGEST_FAST_AXIS = 16
_WIDE_HEAD = 128
"""Channels per head that fill the narrowest matrix unit of a TPU."""


def search(config: Config, topology: Topology) -> list[Plan]:
    """Return all plans that fit with a tenth of the memory free, fastest first; if none fits, all
    plans, the smallest first.

    Raises:
      LiditError: when no mesh divides the batch.
    """
    found = list(_candidates(config, topology))
    if not found:
        raise LiditError(
            f"no mesh of {topology.name} divides config.training.batch_size="
            f"{config.training.batch_size}: take a multiple of a power of two"
        )
    fitting = [p for p in found if p.free_fraction >= _FREE_FRACTION]
    if fitting:
        return sorted(fitting, key=_preference)
    return sorted(found, key=lambda p: p.memory.total)


def _preference(plan: Plan) -> tuple[float, ...]:
    """Return a sort key: fastest first, then less communication, then more free memory."""
    predicted = plan.prediction
    sent = predicted.ici_activations + predicted.ici_weights + predicted.ici_gradients
    return _speed_class(plan.seconds), _speed_class(max(sent, 1e-9)), -plan.free


def _speed_class(seconds: float) -> int:
    """Bin a step time into classes of half a percent."""
    return round(math.log(seconds) / 0.005)


def nearest_that_fits(config: Config, refused: Plan) -> Plan | None:
    """Return the plan that fits with the fewest changes of mesh, policy and accumulation, and the
    fastest of these; on the next larger topology if necessary. None when none is large enough.

    It needs less memory than `refused`, which the compiler may have rejected although it fits by
    formula.
    """

    def changes(other: Plan) -> int:
        kept = dataclasses.replace(other.split, parts=refused.split.parts) == refused.split
        same = (kept, other.split.parts == refused.split.parts, other.remat == refused.remat)
        return same.count(False)

    fitting = [p for p in _candidates(config, refused.topology) if p.free > max(refused.free, 0)]
    if fitting:
        return min(fitting, key=lambda p: (changes(p), *_preference(p)))
    for topology in larger_topologies(refused.topology):
        fitting = [p for p in _candidates(config, topology) if p.free >= 0]
        if fitting:
            return min(fitting, key=_preference)
    return None


def with_heads_of_128(config: Config, chosen: Plan, *, searching: bool) -> Plan | None:
    """Return the plan with the recipes' `head128`, if the model's heads are narrower: as many
    parameters and operations, and better use of the matrix unit. None where such heads do not fit
    the width or the mesh, and on GPUs, whose matrix units are narrow.

    Args:
      config: the run.
      chosen: its plan.
      searching: whether to search other meshes, policies and accumulation than those of `chosen`.
    """
    model = config.model
    heads, rest = divmod(model.width, _WIDE_HEAD)
    narrow = model.width // model.heads < _WIDE_HEAD and not chosen.topology.generation.is_gpu
    if not narrow or rest:
        return None
    wider = dataclasses.replace(config, model=dataclasses.replace(model, heads=heads))
    if searching:
        return search(wider, chosen.topology)[0]
    return None if heads % chosen.split.tensor else make_plan(wider, chosen.topology, chosen.split)


def _candidates(config: Config, topology: Topology) -> Iterator[Plan]:
    for remat in RECOMPUTED:
        changed = dataclasses.replace(config, model=dataclasses.replace(config.model, remat=remat))
        for split in _splits(config, topology):
            yield make_plan(changed, topology, split)


def _splits(config: Config, topology: Topology) -> Iterator[Split]:
    tokens, heads, width = config.image_tokens, config.model.heads, config.model.width
    devices = topology.devices // topology.slices
    fast = topology.shape[0] if topology.generation.is_gpu else _LARGEST_FAST_AXIS
    powers = [2**i for i in range(int(math.log2(devices)) + 1)]
    for tensor in (n for n in powers if n <= fast and heads % n == 0):
        for context in (n for n in powers if n * tensor <= fast and tokens % n == 0):
            for fsdp in (n for n in powers if width % n == 0):
                data, rest = divmod(devices, tensor * context * fsdp)
                rows = topology.slices * data * fsdp
                if rest or not data:
                    continue
                for parts in _PARTS:
                    if config.training.batch_size % (rows * parts) == 0:
                        yield Split(topology.slices, data, fsdp, context, tensor, parts)
