"""Roofline prediction of a training step's time from operations, bytes and the chip's speeds.

Two constants are fitted to published steps by `calibration.fit`; the others were set by hand before
any fit and are the same for all chips. `calibration` computes the error of the predictions on
held-out steps, and `lidit plan` prints it beside every prediction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from lidit_jax.hardware.topologies import Topology


@dataclass(frozen=True)
class Constants:
    """Efficiencies that stand for everything that is not counted."""

    matmul: float
    """Fitted: share of the sustained peak that the matrix products of a step reach."""
    exposed: float
    """Fitted: share of the activations' collectives (tensor, context) that is not overlapped with
    computation."""
    attention: float = 0.5
    """The same as `matmul` for the attention kernel, whose softmax runs on the vector unit."""
    memory: float = 0.8
    """Share of the HBM's bandwidth that element-wise work reaches."""
    elementwise: float = 30.0
    """Activations [tokens, width] that a block reads and writes outside its matrix products."""


CONSTANTS = Constants(matmul=0.78, exposed=0.077)
"""Constants of `calibration.fit` on all published runs."""
_TILE_ROWS = 8
"""Rows per tile of the TPU's memory layout."""
SCATTERED_ROWS = 16
"""Least rows per gradient shard for which the TPU compiler emits a reduce-scatter."""
KERNEL_BACKWARD = 2.5
"""Matrix products of the attention's backward kernel over the forward kernel's: five to two."""


class Recomputed(NamedTuple):
    """Share of the forward pass that the backward pass recomputes."""

    products: float
    attention: float
    """Share of the attention kernels."""


RECOMPUTED = {
    "none": Recomputed(0.0, 0.0),
    "dots": Recomputed(0.0, 0.0),
    # Queries, keys and values, the other queries, and the first half of the FFN: 8 of 14 d^2.
    "branches": Recomputed(8 / 14, 0.0),
    "attention": Recomputed(1.0, 0.0),
    "full": Recomputed(1.0, 1.0),
    "offload": Recomputed(1.0, 1.0),
}
"""Recomputed shares by the value of `config.model.remat`."""


@dataclass(frozen=True)
class Split:
    """Sizes of the mesh axes, and the number of micro-batches (`parts`)."""

    replica: int = 1
    data: int = 1
    fsdp: int = 1
    context: int = 1
    tensor: int = 1
    parts: int = 1

    @property
    def rows(self) -> int:
        """Number of devices over which a batch is split."""
        return self.replica * self.data * self.fsdp


@dataclass(frozen=True)
class Work:
    """Work of one training step of a transformer on the whole batch."""

    dense: float
    """Forward operations of the matrix products."""
    attention: float
    """Forward operations of the attention kernels."""
    counted: float
    """Operations of the step as the MFU counts them, without recomputation."""
    parameters: float
    layers: int
    tokens: float
    width: int
    recomputed: Recomputed
    head_width: int = 128
    """Channels K per head; narrower heads leave part of the matrix unit idle."""
    sums: int = 3
    """All-reduces over `tensor` in a block's forward pass: one per branch."""
    update_bytes: float = 36.0
    """Bytes that the optimizer reads and writes per parameter."""
    never_gathered: float = 0.0
    """Parameters that are not gathered: those with one row per image (modulation) send the row."""
    trained: float = 1.0
    """Share of the parameters that are not frozen."""
    trained_products: float = 1.0
    """Share of the matrix products whose weights have gradients; activations always have."""


@dataclass(frozen=True)
class Prediction:
    """Predicted seconds per step, by cause."""

    products: float
    """Seconds of matrix products."""
    attention: float
    """Seconds of attention kernels."""
    hbm: float
    ici_activations: float
    """Seconds of collectives over tensor and context, overlapped or not."""
    ici_weights: float
    """Seconds of all-gathers of weights over fsdp, overlapped or not."""
    ici_gradients: float
    """Seconds of reductions of gradients over fsdp and data."""
    dcn: float
    step: float
    mfu: float


@dataclass(frozen=True)
class Terms:
    """Parts of a step in seconds at full speed, before the efficiencies in `Constants`."""

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
    """Whether reductions of gradients are not overlapped, see `Generation`."""
    dcn: float
    ideal: float
    """Seconds for the counted operations at the peak."""

    def at(self, constants: Constants) -> Prediction:
        """Predict the step: products, element-wise work, exposed collectives and reductions of
        gradients in sequence, overlapped with the transfer of weights."""
        products = self.products / constants.matmul
        attention = self.attention / constants.attention
        hbm = (self.update + self.activation * constants.elementwise) / constants.memory
        mxu = products + attention
        busy = mxu + hbm + constants.exposed * self.ici_activations
        busy += self.gradients_wait * self.ici_gradients
        step = max(busy, self.ici_weights + self.ici_gradients)
        # Transfers between slices overlap with the backward pass: half of the products' time.
        step += max(0.0, self.dcn - mxu / 2)
        sent = self.ici_activations, self.ici_weights, self.ici_gradients, self.dcn
        return Prediction(products, attention, hbm, *sent, step, self.ideal / step)


def predict(
    work: Work, topology: Topology, split: Split, constants: Constants = CONSTANTS
) -> Prediction:
    """Predict the time of a training step."""
    return terms(work, topology, split).at(constants)


def terms(work: Work, topology: Topology, split: Split) -> Terms:
    """Return the parts of a training step at full speed."""
    chip, again = topology.generation, work.recomputed
    peak = topology.devices * chip.flops
    sustained = peak * chip.sustained
    idle = -(-work.head_width // chip.matrix_side) * chip.matrix_side / work.head_width
    updated = work.trained * work.parameters / (split.fsdp * split.tensor)
    activation = 2.0 * work.tokens / (split.rows * split.context) * work.width

    passes = 2 + again.products
    summed = 2 * work.sums * passes * ring_fraction(split.tensor) * activation
    keys = (
        2 * (passes + 1) * ring_fraction(split.context) * activation * split.context / split.tensor
    )

    weights = 2.0 * (work.parameters - work.never_gathered) / split.tensor
    once = weights * ring_fraction(split.fsdp) * split.parts
    summed_gradients = (
        work.trained * once * _crossings_of_a_sum(work.width / split.fsdp, gpu=chip.is_gpu)
    )
    copied = 2 * 4.0 * updated * ring_fraction(split.data)
    used = sum(size > 1 for size in (split.tensor, split.context))
    return Terms(
        products=work.dense * (2 + work.trained_products + again.products) / sustained,
        attention=idle * work.attention * (1 + KERNEL_BACKWARD + again.attention) / sustained,
        update=updated * work.update_bytes / chip.bandwidth,
        activation=work.layers * activation * (1 + again.products / 3) / chip.bandwidth,
        ici_activations=work.layers * (summed + keys) / topology.fast_bandwidth,
        ici_weights=2 * once / topology.wide_bandwidth(used),
        ici_gradients=(summed_gradients + copied) / topology.wide_bandwidth(used),
        gradients_wait=not chip.hides_sums,
        # Replicas within a slice sum their gradients first, and each sends its part of the sum.
        dcn=2 * 4.0 * updated / split.data * ring_fraction(split.replica) / chip.network,
        ideal=work.counted / peak,
    )


def _crossings_of_a_sum(rows: float, *, gpu: bool) -> float:
    """Return how often a weight's gradients cross the links, for a number of rows per shard.

    The TPU compiler pads a shard to whole tiles, and does not reduce-scatter one of fewer than 16
    rows: it all-reduces whole gradients, twice the traffic, and slices them (seen in compiled
    programs, docs/plans.md; so it does over all 256 chips of a slice of v5e or v6e, which is left
    out here).
    """
    if gpu:
        return 1.0
    return 2.0 if rows < SCATTERED_ROWS else math.ceil(rows / _TILE_ROWS) * _TILE_ROWS / rows


def ring_fraction(devices: int) -> float:
    """Return the share of an array that crosses each link in a ring of so many devices."""
    return (devices - 1) / devices
