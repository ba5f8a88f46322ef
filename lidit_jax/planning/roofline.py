"""How long a training step should take: a prediction from operations, bytes and a chip's speeds.

Two constants are fitted to published steps by `calibration.fit`; the others were set by hand before
any fit and are the same for all chips. `calibration` says how far off the predictions are on steps
that the fit has not seen, and `lidit plan` prints it beside every prediction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from lidit_jax.hardware.topologies import Topology


@dataclass(frozen=True)
class Constants:
    """What stands for everything that is not counted."""

    matmul: float
    """Fitted: share of the sustained peak that the matrix products of a step reach."""
    exposed: float
    """Fitted: share of the activations' collectives (tensor, context) that computing leaves
    unhidden."""
    attention: float = 0.5
    """The same as `matmul` for the attention kernel, whose softmax waits for the vector unit."""
    memory: float = 0.8
    """Share of the HBM's bandwidth that element-wise work reaches."""
    elementwise: float = 30.0
    """Activations [tokens, width] that a block reads and writes outside its matrix products."""


CONSTANTS = Constants(matmul=0.78, exposed=0.077)
"""`calibration.fit` of all published runs."""
_TILE_ROWS = 8
"""Rows of a tile of the TPU's memory layout."""
SCATTERED_ROWS = 16
"""Rows of its gradient that a device must keep for the TPU compiler to scatter the sum."""
KERNEL_BACKWARD = 2.5
"""Products of the attention's backward kernel over those of its forward kernel: five to two."""


class Recomputed(NamedTuple):
    """What the backward pass runs again, as shares of a forward pass."""

    products: float
    attention: float
    """The attention kernels."""


RECOMPUTED = {
    "none": Recomputed(0.0, 0.0),
    "dots": Recomputed(0.0, 0.0),
    # Queries, keys and values, the other queries, and the first half of the FFN: 8 of 14 d^2.
    "branches": Recomputed(8 / 14, 0.0),
    "attention": Recomputed(1.0, 0.0),
    "full": Recomputed(1.0, 1.0),
    "offload": Recomputed(1.0, 1.0),
}
"""By the names of `config.model.remat`."""


@dataclass(frozen=True)
class Split:
    """Sizes of the mesh axes, and the parts in which a batch is worked off."""

    replica: int = 1
    data: int = 1
    fsdp: int = 1
    context: int = 1
    tensor: int = 1
    parts: int = 1

    @property
    def rows(self) -> int:
        """Devices among which a batch is divided."""
        return self.replica * self.data * self.fsdp


@dataclass(frozen=True)
class Work:
    """One training step of a transformer, for the whole batch."""

    dense: float
    """Forward operations of the matrix products."""
    attention: float
    """Forward operations that the attention kernels run."""
    counted: float
    """Operations of the step as the MFU counts them, without recomputation."""
    parameters: float
    layers: int
    tokens: float
    width: int
    recomputed: Recomputed
    head_width: int = 128
    """Channels K of a head; narrower ones leave a part of the matrix unit idle."""
    sums: int = 3
    """Sums over `tensor` in a block's forward pass: one for each branch."""
    update_bytes: float = 36.0
    """Bytes that the optimizer reads and writes for a parameter."""
    never_gathered: float = 0.0
    """Of the parameters: products with one row an image (modulation) send that row instead."""


@dataclass(frozen=True)
class Prediction:
    """Seconds a step, by what they are spent on."""

    products: float
    """Matrix products."""
    attention: float
    """Attention kernels."""
    hbm: float
    ici_activations: float
    """Collectives over tensor and context, hidden or not."""
    ici_weights: float
    """Gathers of weights over fsdp, hidden or not."""
    ici_gradients: float
    """Sums of gradients over fsdp and data."""
    dcn: float
    step: float
    mfu: float


@dataclass(frozen=True)
class Terms:
    """The parts of a step, each at full speed; `at` slows them down by the constants."""

    products: float
    attention: float
    update: float
    """Seconds of HBM for the optimizer."""
    activation: float
    """Seconds of HBM for one activation [tokens, width] in every block, recomputation included."""
    ici_activations: float
    ici_weights: float
    ici_gradients: float
    gradients_wait: bool
    """Whether nothing runs beside the sums of gradients, see `Generation`."""
    dcn: float
    ideal: float
    """Seconds for the counted operations at the peak."""

    def at(self, constants: Constants) -> Prediction:
        """Products, element-wise work, exposed collectives and sums of gradients one after the
        other; weights travel meanwhile, and cost time only where they take longer."""
        products = self.products / constants.matmul
        attention = self.attention / constants.attention
        hbm = (self.update + self.activation * constants.elementwise) / constants.memory
        mxu = products + attention
        busy = mxu + hbm + constants.exposed * self.ici_activations
        busy += self.gradients_wait * self.ici_gradients
        step = max(busy, self.ici_weights + self.ici_gradients)
        # Half of the products' time, the backward pass, hides what travels between slices.
        step += max(0.0, self.dcn - mxu / 2)
        sent = self.ici_activations, self.ici_weights, self.ici_gradients, self.dcn
        return Prediction(products, attention, hbm, *sent, step, self.ideal / step)


def predict(
    work: Work, topology: Topology, split: Split, constants: Constants = CONSTANTS
) -> Prediction:
    """The time of a step."""
    return terms(work, topology, split).at(constants)


def terms(work: Work, topology: Topology, split: Split) -> Terms:
    """What a step consists of."""
    chip, again = topology.generation, work.recomputed
    peak = topology.devices * chip.flops
    sustained = peak * chip.sustained
    idle = -(-work.head_width // chip.matrix_side) * chip.matrix_side / work.head_width
    held = work.parameters / (split.fsdp * split.tensor)
    activation = 2.0 * work.tokens / (split.rows * split.context) * work.width

    passes = 2 + again.products
    summed = 2 * work.sums * passes * ring_fraction(split.tensor) * activation
    keys = (
        2 * (passes + 1) * ring_fraction(split.context) * activation * split.context / split.tensor
    )

    weights = 2.0 * (work.parameters - work.never_gathered) / split.tensor
    once = weights * ring_fraction(split.fsdp) * split.parts
    summed_gradients = once * _crossings_of_a_sum(work.width / split.fsdp, gpu=chip.is_gpu)
    copied = 2 * 4.0 * held * ring_fraction(split.data)
    used = sum(size > 1 for size in (split.tensor, split.context))
    return Terms(
        products=work.dense * (3 + again.products) / sustained,
        attention=idle * work.attention * (1 + KERNEL_BACKWARD + again.attention) / sustained,
        update=held * work.update_bytes / chip.bandwidth,
        activation=work.layers * activation * (1 + again.products / 3) / chip.bandwidth,
        ici_activations=work.layers * (summed + keys) / topology.fast_bandwidth,
        ici_weights=2 * once / topology.wide_bandwidth(used),
        ici_gradients=(summed_gradients + copied) / topology.wide_bandwidth(used),
        gradients_wait=not chip.hides_sums,
        # Devices of a slice that hold copies sum theirs first, and each sends its part of it.
        dcn=2 * 4.0 * held / split.data * ring_fraction(split.replica) / chip.network,
        ideal=work.counted / peak,
    )


def _crossings_of_a_sum(rows: float, *, gpu: bool) -> float:
    """How often the gradients of a weight cross the links, if a device keeps so many rows of them.

    The TPU compiler pads a shard to whole tiles; one of fewer than 16 rows it does not scatter: it
    sums whole gradients, twice the way, and slices them (seen in compiled programs, docs/plans.md;
    so it does over all 256 chips of a slice of v5e or v6e, which is left out here).
    """
    if gpu:
        return 1.0
    return 2.0 if rows < SCATTERED_ROWS else math.ceil(rows / _TILE_ROWS) * _TILE_ROWS / rows


def ring_fraction(devices: int) -> float:
    """What of a whole crosses the links, in a ring of so many devices."""
    return (devices - 1) / devices
