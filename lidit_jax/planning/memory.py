"""Bytes of one chip during training, by owner: a formula for what the compiler will say."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from lidit_jax.config.schema import Config, ModelConfig
from lidit_jax.models.flops import TextStream
from lidit_jax.planning.roofline import Split

_HALF, _FULL = 2, 4
"""Bytes of a bfloat16 and of a float32 number."""
_BRANCH_TENSORS = 16
"""Activations [tokens, width] alive while a block is differentiated, beside those of the FFN; most
of them are cut into heads."""
_REFINER_TENSORS = 40
"""Activations [tokens, width] that the refiners keep a block; half of them under a policy."""
_SCORE_BYTES = 6
"""Of plain attention, where its scores are kept: in float32, and their softmax in bfloat16."""
_PLACEMENT = 0.1
"""What the TPU compiler needs beyond the temporaries that live at once: 0 to 14% in its programs
(docs/plans.md, "Compiled")."""


@dataclass(frozen=True)
class Memory:
    """Bytes a chip."""

    parameters: float
    averages: float
    optimizer: float
    gradients: float
    gathered: float
    """Weights in bfloat16: the device's own, those of the block at work, whole over fsdp, and half
    of those outside of the blocks (a quarter, where the refiners are recomputed)."""
    kept: float
    """Activations kept for the backward pass."""
    working: float
    """Activations of the block at work, and of the refiners."""
    placement: float
    """Left unused between temporaries of different sizes."""
    encoders: float
    """Frozen language models, where captions are encoded during training."""

    @property
    def total(self) -> float:
        """All of it."""
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
    """The memory of one chip.

    Args:
      config: the run.
      split: the mesh.
      tokens: image tokens N.
      streams: the text.
      encoder_bytes: of the frozen language models; 0 with cached features.
      lanes: channels to which a kernel's results are padded, see `Generation`.
      kernel_from: scores of one head, N x S, from which a kernel computes attention.
    """
    model, optimizer = config.model, config.optimizer
    shards = split.fsdp * split.tensor
    held = parameter_count(config, tuple(streams)) / shards
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
    temporaries = {
        "gradients": held * _FULL * gradients,
        "gathered": _HALF * (held + _gathered(config, tuple(streams), split)),
        "kept": model.depth * _kept(model, positions, rows * keys, split.tensor, attention),
        "working": working + refining,
    }
    return Memory(
        parameters=held * _FULL,
        averages=held * _FULL,
        optimizer=held * (moment + second),
        **temporaries,
        placement=_PLACEMENT * sum(temporaries.values()),
        encoders=encoder_bytes / shards,
    )


class _Attention(NamedTuple):
    """How the two attentions of a block lie in memory."""

    padding: tuple[float, float]
    """Channels kept of a head over those it has: splash keeps whole lanes, plain attention, of few
    tokens, has tokens in the lanes."""
    plain_keys: int
    """Keys S of those that plain attention computes."""

    @classmethod
    def of(
        cls, model: ModelConfig, tokens: int, text_tokens: int, lanes: int, kernel_from: int
    ) -> _Attention:
        """Self-attention of the image tokens, and theirs to the text."""
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
    """What the refiners keep of all, as compiled: half of it where they recompute."""
    return 1.0 if model.remat == "none" else 0.5


def _gathered(config: Config, streams: tuple[TextStream, ...], split: Split) -> float:
    """Parameters that a device holds whole over fsdp at once."""
    if split.fsdp == 1:
        return 0.0
    block = block_parameters(config)
    others = parameter_count(config, streams) - config.model.depth * block
    return (block + others * _remembered(config.model) / 2) / split.tensor


def _kept(
    model: ModelConfig, positions: float, text: float, tensor: int, attention: _Attention
) -> float:
    """Bytes that one block keeps for the backward pass; its input always, or on the host.

    Args:
      model: the network.
      positions: image tokens on this device.
      text: text tokens that they read, on this device.
      tensor: devices among which heads and FFN are divided.
      attention: see `_Attention`.
    """
    image, text = (_HALF * model.width * tokens for tokens in (positions, text))
    attended = sum(attention.padding) * image / tensor
    branches = 3 * image
    # Queries, keys and values of the images, queries, then keys and values of the text, and one
    # side of the FFN.
    products = ((4 + model.mlp_ratio) * image + 2 * text) / tensor
    # Inputs of norms, gates and activations, what the kernel reads, and the scores of plain ones.
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
    """Parameters of the trained model, refiners included, by tracing its initialization."""
    # One block tells of all; the policy changes none of them.
    model = dataclasses.replace(config.model, depth=1, remat="none")
    counted = _traced_count(model, config.latent_shape[-1], streams)
    return counted.total + (config.model.depth - 1) * counted.block


class _Counted(NamedTuple):
    total: int
    block: int


@functools.cache
def _traced_count(model: ModelConfig, channels: int, streams: tuple[TextStream, ...]) -> _Counted:
    import jax

    from lidit_jax.models.abstract_inputs import abstract_parameters
    from lidit_jax.models.lidit import LIDiT

    parameters = abstract_parameters(LIDiT(model), streams, channels)
    total, block = (
        sum(leaf.size for leaf in jax.tree.leaves(part))
        for part in (parameters, parameters["blocks"])
    )
    return _Counted(total, block)


def block_parameters(config: Config) -> float:
    """Weights of one block of the backbone: two attentions, FFN and modulation."""
    attentions_and_ffn = (8 + 2 * config.model.mlp_ratio) * config.model.width**2
    return attentions_and_ffn + modulation_parameters(config)


def modulation_parameters(config: Config) -> float:
    """Weights of one block's modulation: shift, scale and gate of three branches."""
    return 9.0 * config.model.width**2
