"""What a run would need on a TPU slice and how fast it could be: all by formula, on any machine."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from lidit_jax.config import Config
from lidit_jax.errors import LiditError
from lidit_jax.models.flops import TextStream, forward_flops
from lidit_jax.parallel.memory import Memory, estimate_memory, parameter_count
from lidit_jax.parallel.mesh import AXES, nearest_divisors
from lidit_jax.parallel.roofline import Prediction, Split, Work, predict
from lidit_jax.parallel.topologies import Topology

_UPDATE_BYTES = 36.0
"""Read and written for a parameter by AdamW with averages: weights, two moments, average, and the
gradient read."""
_FREE = 0.1
"""Share of the HBM that a plan found by searching leaves free."""
_ENCODERS = {"smollm2": (0.135e9, 576), "minilm": (0.023e9, 384)}
"""Parameters and width of packaged encoders."""
_LLM_WIDTH = 4096
"""Width of the 7 to 8 billion parameter models that the recipes name."""


@dataclass(frozen=True)
class Text:
    """How the captions reach the model, and what it costs either way."""

    streams: tuple[TextStream, ...]
    parameters: float
    """Of all encoders."""
    online: bool
    """Whether captions are encoded during training; else their features are read from storage."""
    encoding_flops: float
    """To encode one caption, with the instruction's keys and values computed once."""
    bytes_a_caption: int
    """Of its features in bfloat16, without the instruction's."""


@dataclass(frozen=True)
class Plan:
    """One run on one topology."""

    topology: Topology
    split: Split
    remat: str
    memory: Memory
    prediction: Prediction
    model_flops: float
    """Of one step, as the MFU counts them."""
    batch: int
    steps: int
    text: Text
    parameters: int

    @property
    def free(self) -> float:
        """Bytes of HBM left on a chip; below 0 the plan does not fit by as much."""
        return self.topology.generation.memory - self.memory.total

    @property
    def seconds(self) -> float:
        """Predicted seconds a step, encoding included where it is online."""
        return self.prediction.step + self.encoding_seconds

    @property
    def encoding_seconds(self) -> float:
        """Of it, for encoding captions online, at 60% of the peak."""
        if not self.text.online:
            return 0.0
        chip = self.topology.generation
        flops = self.batch * self.text.encoding_flops
        return flops / (self.topology.chips * chip.flops * 0.6)

    @property
    def chip_hours(self) -> float:
        """For the whole schedule."""
        return self.seconds * self.steps * self.topology.chips / 3600


def plan(config: Config, topology: Topology, split: Split, *, online: bool = False) -> Plan:
    """The plan of one configuration on one mesh.

    Raises:
      LiditError: when the mesh does not divide the model or the batch.
    """
    tokens = image_tokens(config)
    _check(config, topology, split, tokens)
    text = describe_text(config, online)
    parameters = parameter_count(config, text.streams)
    forward = forward_flops(config.model, tokens, config.vae.channels, text.streams)
    batch = config.training.batch_size
    work = Work(
        dense=batch * (forward.total - forward.attention),
        attention=batch * forward.attention,
        counted=batch * forward.training,
        parameters=parameters,
        layers=config.model.depth,
        tokens=batch * tokens,
        width=config.model.width,
        remat=config.model.remat,
        head_width=config.model.width // config.model.heads,
        update_bytes=_UPDATE_BYTES,
    )
    encoders = text.parameters if online else 0.0
    return Plan(
        topology,
        split,
        config.model.remat,
        estimate_memory(config, split, tokens, text.streams, encoders),
        predict(work, topology, split),
        work.counted,
        batch,
        config.training.steps,
        text,
        parameters,
    )


def search(config: Config, topology: Topology, *, online: bool = False) -> list[Plan]:
    """All meshes, policies and numbers of parts that fit with a tenth of the memory free, fastest
    first; where none does, all of them, the smallest first."""
    found = []
    for remat in ("none", "dots", "attention", "full", "offload"):
        changed = dataclasses.replace(config, model=dataclasses.replace(config.model, remat=remat))
        for split in _splits(config, topology):
            found.append(plan(changed, topology, split, online=online))
    if not found:
        raise LiditError(
            f"no mesh of {topology.name} divides config.training.batch_size="
            f"{config.training.batch_size}: take a multiple of a power of two"
        )
    fitting = [p for p in found if p.free >= _FREE * topology.generation.memory]
    if fitting:
        return sorted(fitting, key=lambda p: p.seconds)
    return sorted(found, key=lambda p: p.memory.total)


def _splits(config: Config, topology: Topology) -> Iterator[Split]:
    tokens, heads, width = image_tokens(config), config.model.heads, config.model.width
    chips = topology.chips // topology.slices
    powers = [2**i for i in range(int(math.log2(chips)) + 1)]
    for tensor in (n for n in powers if n <= 16 and heads % n == 0):
        for context in (n for n in powers if n <= 16 and tokens % n == 0):
            for fsdp in (n for n in powers if width % n == 0):
                data, rest = divmod(chips, tensor * context * fsdp)
                rows = topology.slices * data * fsdp
                if rest or not data:
                    continue
                for parts in (1, 2, 4, 8, 16):
                    if config.training.batch_size % (rows * parts) == 0:
                        yield Split(topology.slices, data, fsdp, context, tensor, parts)


def parse_mesh(text: str, config: Config, topology: Topology) -> Split:
    """The split "fsdp=64,tensor=2"; `data` takes the chips that are left, `replica` the slices.

    Raises:
      LiditError: for an unknown axis, a size that is no number, or one that does not fit.
    """
    sizes = {"replica": topology.slices}
    for part in filter(None, text.split(",")):
        axis, _, size = part.partition("=")
        if axis not in AXES or not size.isdigit() or int(size) == 0:
            raise LiditError(f"--mesh={text}: write AXIS=SIZE with an axis of {', '.join(AXES)}")
        sizes[axis] = int(size)
    used = math.prod(size for axis, size in sizes.items() if axis != "data")
    if topology.chips % used:
        below = max(n for n in range(1, used + 1) if topology.chips % n == 0)
        raise LiditError(
            f"--mesh={text}: {used} does not divide the {topology.chips} chips of "
            f"{topology.name}, the nearest that does is {below}"
        )
    sizes.setdefault("data", topology.chips // used)
    return Split(**sizes, parts=config.training.accumulation)


def default_mesh(config: Config, topology: Topology) -> str:
    """All chips of a slice over fsdp, as far as the width divides."""
    return f"fsdp={math.gcd(config.model.width, topology.chips // topology.slices)}"


def image_tokens(config: Config) -> int:
    """Tokens N of a training image."""
    downsample = 1 if config.vae.source == "pixels" and config.data.source == "scenes" else 8
    return (config.data.image_size // (downsample * config.model.patch)) ** 2


def describe_text(config: Config, online: bool, prompt: int = 100, instruction: int = 30) -> Text:
    """Sizes of the text, for captions of 100 tokens behind an instruction of 30."""
    sizes = [_encoder(source) for source in config.encoders.sources]
    streams = tuple(TextStream(width, instruction + prompt, instruction) for _, width in sizes)
    parameters = sum(count for count, _ in sizes)
    stored = sum(2 * prompt * width for _, width in sizes)
    return Text(streams, parameters, online, 2 * parameters * prompt, stored)


def _encoder(source: str) -> tuple[float, int]:
    """Parameters and width, from the size in the name: "…-8b-…" has 8e9."""
    if source in _ENCODERS:
        return _ENCODERS[source]
    size = re.search(r"(\d+(?:\.\d+)?)b(?![a-z])", source.lower())
    return (float(size[1]) if size else 8.0) * 1e9, _LLM_WIDTH


def _check(config: Config, topology: Topology, split: Split, tokens: int) -> None:
    sizes = [getattr(split, axis) for axis in AXES]
    if math.prod(sizes) != topology.chips:
        raise LiditError(
            f"--mesh: {' x '.join(map(str, sizes))} devices are not the {topology.chips} chips "
            f"of {topology.name}"
        )
    batch, unit = config.training.batch_size, split.rows * split.parts
    if batch % unit:
        nearest = max(round(batch / unit), 1) * unit
        raise LiditError(
            f"config.training.batch_size={batch} does not divide over {split.rows} chips and "
            f"{split.parts} parts: the nearest that does is {nearest}"
        )
    for axis, name, whole in (
        ("tensor", "config.model.heads", config.model.heads),
        ("fsdp", "config.model.width", config.model.width),
        ("context", "the tokens of an image", tokens),
    ):
        size = getattr(split, axis)
        if whole % size:
            near = " and ".join(map(str, nearest_divisors(whole, size)))
            raise LiditError(
                f"--mesh: {axis}={size} does not divide {name}={whole}: the nearest that do are "
                f"{near}"
            )
