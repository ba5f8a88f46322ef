"""Predicted memory, step time, MFU and chip-hours of a run on a TPU slice or GPU nodes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from lidit_jax.attention.dispatch import MIN_KERNEL_SCORES
from lidit_jax.config.schema import Config
from lidit_jax.config.values import LayerChoice
from lidit_jax.encoders.layer_choice import chosen_layers, highest_block, layer_count
from lidit_jax.errors import LiditError
from lidit_jax.hardware.topologies import Topology
from lidit_jax.models.flops import TextStream, forward_flops
from lidit_jax.planning.memory import (
    Memory,
    estimate_memory,
    modulation_parameters,
    parameter_count,
)
from lidit_jax.planning.plan_mesh import check_split
from lidit_jax.planning.roofline import CONSTANTS, RECOMPUTED, Prediction, Split, Work, predict
from lidit_jax.training.trained_parts import trained_parts

_AVERAGES_BYTES = 8.0
"""Bytes read and written per parameter for its EMA."""


class _Encoder(NamedTuple):
    """Sizes of a text encoder."""

    parameters: float
    width: int
    blocks: int


class _Layers(NamedTuple):
    """Layers of an encoder."""

    number: int
    share: float
    """Share of the blocks that run."""


_ENCODERS = {
    "smollm2": _Encoder(0.135e9, 576, 30),
    "smollm2-135m-instruct": _Encoder(0.135e9, 576, 30),
    "minilm": _Encoder(0.023e9, 384, 6),
    "llava-llama-3-8b-v1_1-transformers": _Encoder(8.0e9, 4096, 32),
    "llava-interleave-qwen-7b-hf": _Encoder(7.0e9, 4096, 32),
    "qwen2.5-0.5b-instruct": _Encoder(0.49e9, 896, 24),
    "qwen3-0.6b": _Encoder(0.6e9, 1024, 28),
    "gemma-2-2b-it": _Encoder(2.6e9, 2304, 26),
    "gemma-3-1b-it": _Encoder(1.0e9, 1152, 26),
    "gemma-3-4b-it": _Encoder(3.9e9, 2560, 34),
    "smollm3-3b": _Encoder(3.1e9, 2048, 36),
    "olmo-2-0425-1b": _Encoder(1.3e9, 2048, 16),
    "olmo-3-7b-instruct": _Encoder(6.9e9, 4096, 32),
    "qwen2.5-vl-7b-instruct": _Encoder(7.1e9, 3584, 28),
    "qwen3-vl-4b-instruct": _Encoder(4.0e9, 2560, 36),
    "clip-vit-large-patch14": _Encoder(0.12e9, 768, 12),
    "siglip2-base-patch16-224": _Encoder(0.28e9, 768, 12),
    "flan-t5-base": _Encoder(0.11e9, 768, 12),
    "flan-t5-large": _Encoder(0.34e9, 1024, 24),
    "flan-t5-xl": _Encoder(1.2e9, 2048, 24),
}
"""Text encoders by the last part of their names: of T5 no decoder, of others no vision tower."""
_ITEM_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
_ASSUMED = _Encoder(8e9, 4096, 32)
"""Assumed sizes of an encoder that is not listed."""


@dataclass(frozen=True)
class Text:
    """Cost of the captions' text features, cached or encoded during training."""

    streams: tuple[TextStream, ...]
    weights: float
    """Bytes of the weights of all encoders."""
    online: bool
    """Whether captions are encoded during training; else their features are read from storage."""
    steps_a_call: int
    """Number of steps whose captions are encoded in one call."""
    encoding_flops: float
    """Operations per caption of the blocks below the highest of `encoders.layers`, or of all if
    none is named, with the instruction's keys and values computed once."""
    bytes_a_caption: int
    """Bytes of one caption's features in bfloat16, without the instruction's."""
    assumed: tuple[str, ...]
    """Encoders of unknown size, assumed to be LLMs of 8 B parameters."""


@dataclass(frozen=True)
class Plan:
    """Predicted needs and speed of one run on one topology."""

    topology: Topology
    split: Split
    remat: str
    heads: int
    """Attention heads of the backbone."""
    memory: Memory
    prediction: Prediction
    model_flops: float
    """Operations per step as counted for the MFU."""
    batch: int
    steps: int
    text: Text
    parameters: int
    trained: int
    """Number of parameters that are not frozen."""
    latents_online: bool = False
    """Whether images are encoded during training, whose time is not predicted."""

    @property
    def free(self) -> float:
        """Free bytes of HBM per device; negative when the plan does not fit."""
        return self.topology.generation.memory - self.memory.total

    @property
    def free_fraction(self) -> float:
        """Free share of a device's HBM."""
        return self.free / self.topology.generation.memory

    @property
    def seconds(self) -> float:
        """Predicted seconds per step, online encoding included."""
        return self.prediction.step + self.encoding_seconds

    @property
    def mfu(self) -> float:
        """Predicted MFU; online encoding counts in the time but not in the operations."""
        return self.prediction.mfu * self.prediction.step / self.seconds

    @property
    def gathering_seconds(self) -> float:
        """Seconds to gather the encoders' weights once for online encoding."""
        if not self.text.online:
            return 0.0
        return self.text.weights / self.topology.wide_bandwidth(0)

    @property
    def encoding_seconds(self) -> float:
        """Seconds per step for online encoding, overlapped with the gathering of weights."""
        if not self.text.online:
            return 0.0
        chip = self.topology.generation
        flops = self.batch * self.text.encoding_flops
        peak = self.topology.devices * chip.flops * chip.sustained * CONSTANTS.matmul
        return max(flops / peak, self.gathering_seconds / self.text.steps_a_call)

    @property
    def chip_hours(self) -> float:
        """Chip-hours for the whole training run."""
        return self.seconds * self.steps * self.topology.chips / 3600


def make_plan(config: Config, topology: Topology, split: Split) -> Plan:
    """Predict memory and step time of one configuration on one mesh.

    Raises:
      LiditError: when the mesh does not divide the model or the batch, or the config trains
        another task or has images that are not a whole number of tokens.
    """
    _check_plannable(config)
    tokens, channels = config.image_tokens, config.latent_shape[-1]
    check_split(config, topology, split)
    text = describe_text(config)
    parameters = parameter_count(config, text.streams)
    trained = trained_parts(config, text.streams, tokens)
    forward = forward_flops(config.model, tokens, channels, text.streams)
    batch = config.training.batch_size
    dense = batch * (forward.total - forward.attention)
    work = Work(
        dense=dense,
        attention=batch * forward.attention,
        counted=batch * forward.training_with(trained.products),
        parameters=parameters,
        layers=config.model.depth,
        tokens=batch * tokens,
        width=config.model.width,
        recomputed=RECOMPUTED[config.model.remat],
        head_width=config.model.width // config.model.heads,
        update_bytes=_update_bytes(config),
        never_gathered=config.model.depth * modulation_parameters(config),
        trained=trained.parameters / parameters,
        trained_products=trained.products,
    )
    return Plan(
        topology,
        split,
        config.model.remat,
        config.model.heads,
        estimate_memory(
            *(config, split, tokens, text.streams, text.weights * text.online),
            lanes=topology.generation.lanes,
            kernel_from=0 if topology.generation.is_gpu else MIN_KERNEL_SCORES,
        ),
        predict(work, topology, split),
        work.counted,
        batch,
        config.training.steps,
        text,
        parameters,
        trained.parameters,
        config.data.latents == "online",
    )


def _check_plannable(config: Config) -> None:
    if config.training.task != "lidit":
        raise LiditError(
            f"lidit plan: config.training.task={config.training.task!r}: plans are of the "
            "text-to-image model"
        )
    unit = config.model.patch * (1 if config.vae.source == "pixels" else config.vae.downsample)
    if config.data.image_size % unit:
        near = max(round(config.data.image_size / unit), 1) * unit
        raise LiditError(
            f"config.data.image_size={config.data.image_size} is not a multiple of the {unit} "
            f"pixels of a token: the nearest is {near}"
        )


def _update_bytes(config: Config) -> float:
    """Return the HBM bytes per parameter of an update: weights, moments and EMA read and written,
    and the gradient read."""
    first = 2 if config.optimizer.momentum_dtype == "bfloat16" else 4
    second = 4 if config.optimizer.name == "adamw" else 0
    return 2.0 * (4 + first + second) + 4 + _AVERAGES_BYTES


def describe_text(config: Config, prompt: int = 100, instruction: int = 30) -> Text:
    """Return the sizes and cost of the text for captions and an instruction of so many tokens."""
    sizes = [_encoder(source) for source in config.encoders.sources]
    choices = config.encoders.layers or [-1] * len(sizes)
    layers = [_layers(*pair) for pair in zip(config.encoders.sources, choices, strict=True)]
    streams = tuple(
        TextStream(size.width, instruction + prompt, instruction, own.number)
        for size, own in zip(sizes, layers, strict=True)
    )
    parameters = sum(size.parameters for size in sizes)
    running = sum(s.parameters * own.share for s, own in zip(sizes, layers, strict=True))
    return Text(
        streams,
        weights=parameters * _ITEM_BYTES[config.encoders.dtype],
        online=config.data.text_features == "online",
        steps_a_call=config.data.encode_steps,
        encoding_flops=2 * prompt * running,
        bytes_a_caption=sum(2 * prompt * math.prod(stream.token_shape) for stream in streams),
        assumed=tuple(s for s in config.encoders.sources if _short(s) not in _ENCODERS),
    )


def _layers(source: str, choice: LayerChoice) -> _Layers:
    blocks = _encoder(source).blocks
    if _short(source) not in _ENCODERS and choice != "all":
        # Its layers are not known to exist.
        return _Layers(layer_count(choice), 1.0)
    chosen = chosen_layers(choice, blocks)
    return _Layers(layer_count(chosen), highest_block(chosen, blocks) / blocks)


def _encoder(source: str) -> _Encoder:
    return _ENCODERS.get(_short(source), _ASSUMED)


def _short(source: str) -> str:
    return source.lower().rpartition("/")[2]
