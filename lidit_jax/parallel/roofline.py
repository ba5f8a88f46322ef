"""How long a training step should take: a prediction from operations, bytes and a chip's speeds.

One fixed set of constants stands for everything that is not counted. They were chosen by hand with
the published runs of `PUBLISHED` in view, so these runs check consistency, not foresight; their
errors are printed beside every prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

from lidit_jax.parallel.topologies import GENERATIONS, Topology, parse_topology

MATMUL_EFFICIENCY = 0.86
"""Share of the peak that large matrix products reach."""
ATTENTION_EFFICIENCY = 0.5
"""The same for the attention kernel, whose softmax waits for the vector unit."""
MEMORY_EFFICIENCY = 0.8
"""Share of the HBM's bandwidth that element-wise work reaches."""
EXPOSED = 0.5
"""Share of the activations' collectives (tensor, context) that computation does not hide."""
ELEMENTWISE_TENSORS = 30
"""Activations [tokens, width] that a block reads and writes outside its matrix products."""
KERNEL_BACKWARD = 2.5
"""Products of the attention's backward kernel over those of its forward kernel: five to two."""

RECOMPUTED = {
    # policy: forward passes run again of (matrix products, attention kernels)
    "none": (0.0, 0.0),
    "dots": (0.0, 1.0),
    "attention": (1.0, 0.0),
    "full": (1.0, 1.0),
    "offload": (1.0, 1.0),
}


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
    remat: str
    head_width: int = 128
    """Channels K of a head; narrower ones leave a part of the matrix unit idle."""
    sums: int = 3
    """Sums over `tensor` in a block's forward pass: one for each branch."""
    update_bytes: float = 36.0
    """Bytes that the optimizer reads and writes for a parameter."""


@dataclass(frozen=True)
class Prediction:
    """Seconds a step, by what they are spent on."""

    mxu: float
    hbm: float
    ici_activations: float
    """Collectives over tensor and context, hidden or not."""
    ici_weights: float
    """Collectives over fsdp and data, hidden or not."""
    dcn: float
    step: float
    mfu: float


def predict(work: Work, topology: Topology, split: Split) -> Prediction:
    """The step's time: products, element-wise work and exposed collectives one after the other;
    weights travel meanwhile, and cost time only where they take longer."""
    chip = topology.generation
    chips = topology.chips
    again_dense, again_attention = RECOMPUTED[work.remat]
    dense = work.dense * (3 + again_dense) / (chips * chip.flops * MATMUL_EFFICIENCY)
    idle = -(-work.head_width // chip.matrix_side) * chip.matrix_side / work.head_width
    attention = idle * work.attention * (1 + KERNEL_BACKWARD + again_attention)
    mxu = dense + attention / (chips * chip.flops * ATTENTION_EFFICIENCY)

    held = work.parameters / (split.fsdp * split.tensor)
    local = work.tokens / (split.rows * split.context)
    activation = 2.0 * local * work.width
    elementwise = work.layers * activation * ELEMENTWISE_TENSORS * (1 + again_dense / 3)
    moved = held * work.update_bytes + elementwise
    hbm = moved / (chip.bandwidth * MEMORY_EFFICIENCY)

    passes = 2 + again_dense
    summed = 2 * work.sums * passes * _share(split.tensor) * activation
    keys = 2 * (passes + 1) * _share(split.context) * activation * split.context / split.tensor
    one_axis = topology.axis_bandwidth(1)
    ici_activations = work.layers * (summed + keys) / one_axis

    free = chip.axes - sum(size > 1 for size in (split.tensor, split.context))
    wide = topology.axis_bandwidth(max(free, 1))
    weights = 2.0 * work.parameters / split.tensor
    gathered = 3 * weights * _share(split.fsdp) * split.parts
    copied = 2 * 4.0 * held * _share(split.data)
    ici_weights = (gathered + copied) / wide
    dcn = 2 * 4.0 * held * _share(split.replica) / chip.network

    step = max(mxu + hbm + EXPOSED * ici_activations, ici_weights) + max(0.0, dcn - mxu / 2)
    mfu = work.counted / (step * chips * chip.flops)
    return Prediction(mxu, hbm, ici_activations, ici_weights, dcn, step, mfu)


def _share(devices: int) -> float:
    """What of a whole crosses the links, in a ring of so many devices."""
    return (devices - 1) / devices


@dataclass(frozen=True)
class PublishedRun:
    """A measured step of another project."""

    name: str
    topology: str
    split: Split
    work: Work
    seconds: float


def published_runs() -> list[PublishedRun]:
    """MaxDiffusion's Flux (its README, full recomputation assumed) and MaxText's v5p rows.

    Of MaxText the settings are `MaxText/configs/v5p/*.sh`; its table gives MFU, with the whole
    square of causal attention counted, from which the seconds follow.
    """
    runs = [_flux()]
    for billions, width, hidden, heads, layers, rows, chips, tensor, remat, mfu in _MAXTEXT:
        side = {64: "4x4x4", 128: "4x4x8", 512: "8x8x8"}[chips]
        tokens = rows * chips * 2048.0
        attended = heads * 128
        parameters = layers * (3 * width * hidden + 4 * width * attended) + 32_000 * width
        square = 4.0 * layers * tokens * 2048 * attended
        counted = 6 * parameters * tokens + 3 * square
        work = Work(
            2 * parameters * tokens,
            square / 2,
            counted,
            parameters,
            layers,
            tokens,
            width,
            remat,
            sums=2,
            update_bytes=28.0,
        )
        split = Split(fsdp=chips // tensor, tensor=tensor)
        seconds = counted / (mfu * chips * GENERATIONS["v5p"].flops)
        runs.append(PublishedRun(f"MaxText {billions}B", f"v5p:{side}", split, work, seconds))
    return runs


_MAXTEXT = (
    # parameters, width, FFN, heads, layers, rows a chip, chips, tensor, recomputation, MFU
    (32, 8192, 28672, 64, 32, 7, 64, 4, "none", 0.715),
    (64, 8192, 28672, 64, 64, 3, 64, 4, "none", 0.703),
    (128, 8192, 57344, 128, 64, 1, 128, 8, "none", 0.687),
    (256, 16384, 57344, 128, 64, 1, 512, 8, "none", 0.671),
    (512, 16384, 57344, 128, 128, 2, 512, 8, "full", 0.640),
)


def _flux() -> PublishedRun:
    """Flux-dev, 1024 px, batch 8 on four chips: 1.769 s; 2.23e14 operations a sample."""
    tokens, width, layers, batch = 4608, 3072, 57, 8
    square = 4.0 * layers * tokens**2 * width * batch
    counted = 2.23e14 * batch
    dense = counted / 3 - square
    work = Work(
        dense,
        square,
        counted,
        11.9e9,
        layers,
        tokens * batch,
        width,
        "full",
        sums=2,
        update_bytes=28.0,
    )
    return PublishedRun("MaxDiffusion Flux", "v5p:2x2x1", Split(fsdp=4), work, 1.769)


def validation() -> list[tuple[str, float, float]]:
    """(name, published seconds, predicted over published minus 1) of every published run."""
    return [
        (
            run.name,
            run.seconds,
            predict(run.work, parse_topology(run.topology), run.split).step / run.seconds - 1,
        )
        for run in published_runs()
    ]
