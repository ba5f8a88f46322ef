"""Estimated memory per chip during training, by use: parameters, activations, gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from lidit_jax.config.schema import Config, ModelConfig
from lidit_jax.models.flops import TextStream
from lidit_jax.planning.roofline import Split
from lidit_jax.training.trained_parts import parameter_sizes, trained_parts

_HALF, _FULL = 2, 4
"""Bytes per bfloat16 and per float32 value."""
_BRANCH_TENSORS = 16
"""Activations [tokens, width] live while a block is differentiated, beside those of the FFN; most
of them are split into heads."""
_REFINER_TENSORS = 40
"""Activations [tokens, width] kept per refiner block; half of them under a remat policy."""
_LAYER_TENSORS = 6
"""Tensors as large as all layers of a stream while they are combined: 6 in XLA's program for a CPU
if they are concatenated, 2 or 3 if averaged. One layer is small."""
_SCORE_BYTES = 6
"""Bytes per attention score that plain attention keeps: float32, and its softmax in bfloat16."""
_PLACEMENT = 0.1
"""Share of memory that the TPU compiler uses beyond the live temporaries: 0 to 14% in its programs
(docs/plans.md, "Compiled")."""


@dataclass(frozen=True)
class Memory:
    """Bytes per chip, by use."""

    parameters: float
    averages: float
    optimizer: float
    gradients: float
    gathered: float
    """Weights in bfloat16: the device's shard, those of the current block gathered over fsdp, and
    half of those outside of the blocks (a quarter where the refiners are recomputed)."""
    kept: float
    """Activations kept for the backward pass."""
    working: float
    """Activations of the current block and of the refiners."""
    placement: float
    """Bytes lost to fragmentation between temporaries of different sizes."""
    encoders: float
    """Frozen language models, where captions are encoded during training."""

    @property
    def total(self) -> float:
        """Sum over all uses."""
        return sum(asdict(self).values())


def estimate_memory(
    config: Config,
    split: Split,
    tokens: int,
    streams: Sequence[TextStream],
    encoder_bytes: float = 0.0,
    lanes: int = 1,
    kernel_from: int = 0,
) -> Memory:
    """Estimate the memory of one chip.

    Args:
      config: the run.
      split: the mesh.
      tokens: image tokens N.
      streams: lengths and widths of the text features.
      encoder_bytes: bytes per chip of the frozen language models; 0 with cached features.
      lanes: channels to which a kernel's results are padded, see `Generation`.
      kernel_from: scores of one head, N x S, from which a kernel computes attention.
    """
    model, optimizer = config.model, config.optimizer
    shards = split.fsdp * split.tensor
    held = parameter_count(config, tuple(streams)) / shards
    trained = trained_parts(config, tuple(streams), tokens).parameters / shards
    rows = math.ceil(config.training.batch_size / (split.rows * split.parts))
    positions = rows * tokens / split.context
    stream = positions * model.width * _HALF
    text = rows * sum(s.tokens for s in streams) * model.width * _HALF
    moment = _HALF if optimizer.momentum_dtype == "bfloat16" else _FULL
    # AdamW has two moments, Muon one for its matrices, Adafactor rows and columns of the second.
    second = _FULL if optimizer.name == "adamw" else 0
    gradients = 2 if split.parts > 1 else 1
    keys = sum(s.tokens - s.prefix_length for s in streams)
    attention = _Attention.of(model, tokens, keys, lanes, kernel_from)
    working = (_BRANCH_TENSORS * attention.padding[0] + 3 * model.mlp_ratio) / split.tensor * stream
    refining = _REFINER_TENSORS * _remembered(model) * (model.refiner.blocks + 1) * text
    several = [s.tokens * math.prod(s.token_shape) for s in streams if s.layers > 1]
    combining = _LAYER_TENSORS * rows * sum(several) * _HALF
    temporaries = {
        "gradients": trained * _FULL * gradients,
        "gathered": _HALF * (held + _gathered(config, tuple(streams), split)),
        "kept": model.depth * _kept(model, positions, rows * keys, split.tensor, attention),
        "working": working + refining + combining,
    }
    return Memory(
        parameters=held * _FULL,
        averages=held * _FULL,
        optimizer=trained * (moment + second),
        **temporaries,
        placement=_PLACEMENT * sum(temporaries.values()),
        encoders=encoder_bytes / shards,
    )


class _Attention(NamedTuple):
    """Memory layout of the two attentions of a block."""

    padding: tuple[float, float]
    """Padded channels per head over its channels: splash pads to whole lanes, plain attention does
    not, because its lanes hold tokens."""
    plain_keys: int
    """Total number of keys S of the attentions that are computed without a kernel."""

    @classmethod
    def of(
        cls, model: ModelConfig, tokens: int, text_tokens: int, lanes: int, kernel_from: int
    ) -> _Attention:
        """Return the layout of the self-attention and the cross-attention to the text."""
        head = model.width // model.heads
        whole = math.ceil(head / lanes) * lanes / head
        keys = tokens, text_tokens
        by_kernel = [tokens * k >= kernel_from for k in keys]
        own, text = (whole if kernel else 1.0 for kernel in by_kernel)
        return cls(
            (own, text),
            sum(k for k, kernel in zip(keys, by_kernel, strict=True) if not kernel),
        )


def _remembered(model: ModelConfig) -> float:
    """Return the share of activations that the refiners keep, as compiled: half with remat."""
    return 1.0 if model.remat == "none" else 0.5


def _gathered(config: Config, streams: tuple[TextStream, ...], split: Split) -> float:
    """Count the parameters that a device holds gathered over fsdp at one time."""
    if split.fsdp == 1:
        return 0.0
    block = block_parameters(config)
    others = parameter_count(config, streams) - config.model.depth * block
    return (block + others * _remembered(config.model) / 2) / split.tensor


def _kept(
    model: ModelConfig, positions: float, text: float, tensor: int, attention: _Attention
) -> float:
    """Return the bytes that one block keeps for the backward pass, its input included.

    Args:
      model: the network.
      positions: image tokens on this device.
      text: text tokens that they attend to, on this device.
      tensor: devices among which heads and FFN are divided.
      attention: see `_Attention`.
    """
    image, text = (_HALF * model.width * tokens for tokens in (positions, text))
    attended = sum(attention.padding) * image / tensor
    branches = 3 * image
    # Queries, keys and values of the images, queries, then keys and values of the text, and one
    # side of the FFN.
    products = ((4 + model.mlp_ratio) * image + 2 * text) / tensor
    # Inputs of norms, gates and activations, inputs of the kernel, and scores of plain attention.
    others = (9 + (3 * attention.padding[0] + 2 * model.mlp_ratio) / tensor) * image
    scores = _SCORE_BYTES * model.heads * positions * attention.plain_keys / tensor
    return {
        "offload": 0.05 * image,
        "full": image,
        "attention": image + attended,
        "branches": image + attended + branches,
        "dots": image + attended + branches + products,
        "none": image + attended + branches + products + others + scores,
    }[model.remat]


def parameter_count(config: Config, streams: tuple[TextStream, ...]) -> int:
    """Count the model's parameters, refiners included."""
    return sum(parameter_sizes(config, streams).values())


def block_parameters(config: Config) -> float:
    """Count the weights of one backbone block: two attentions, FFN and modulation."""
    attentions_and_ffn = (8 + 2 * config.model.mlp_ratio) * config.model.width**2
    return attentions_and_ffn + modulation_parameters(config)


def modulation_parameters(config: Config) -> float:
    """Count the weights of one block's modulation: shift, scale and gate of each branch."""
    branches = 3 if config.model.cross_attention == "modulated" else 2
    return 3.0 * branches * config.model.width**2
