"""Bytes of one chip during training, by owner: a formula for what the compiler will say."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

from lidit_jax.config import Config, ModelConfig
from lidit_jax.models.flops import TextStream
from lidit_jax.parallel.roofline import Split

_HALF, _FULL = 2, 4
"""Bytes of a bfloat16 and of a float32 number."""
_BRANCH_TENSORS = 16
"""Activations [tokens, width] alive while a block is differentiated, beside those of the FFN."""
_REFINER_TENSORS = 40
"""Activations [tokens, width] that the refiners, which are not recomputed, keep a block."""


@dataclass(frozen=True)
class Memory:
    """Bytes a chip."""

    parameters: float
    averages: float
    optimizer: float
    gradients: float
    gathered: float
    """Weights of two blocks, whole over fsdp: the one at work and the one that comes next."""
    kept: float
    """Activations kept for the backward pass."""
    working: float
    """Activations of the block at work, and of the refiners."""
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
) -> Memory:
    """The memory of one chip.

    Args:
      config: the run.
      split: the mesh.
      tokens: image tokens N.
      streams: the text.
      encoder_bytes: of the frozen language models; 0 with cached features.
      lanes: channels to which the devices' memory pads a head: 128 on TPUs.
    """
    model, optimizer = config.model, config.optimizer
    shards = split.fsdp * split.tensor
    held = parameter_count(config, streams) / shards
    rows = math.ceil(config.training.batch_size / (split.rows * split.parts))
    stream = rows * tokens / split.context * model.width * _HALF
    text = rows * sum(s.tokens for s in streams) * model.width * _HALF
    moment = _HALF if optimizer.momentum_dtype == "bfloat16" else _FULL
    # AdamW has two moments, Muon one for its matrices, Adafactor rows and columns of the second.
    second = _FULL if optimizer.name == "adamw" else 0
    gradients = 2 if split.parts > 1 else 1
    block = block_parameters(config) / split.tensor
    ffn = 3 * model.mlp_ratio * stream / split.tensor
    return Memory(
        parameters=held * _FULL,
        averages=held * _FULL,
        optimizer=held * (moment + second),
        gradients=held * _FULL * gradients,
        gathered=2 * block * _HALF if split.fsdp > 1 else 0.0,
        kept=model.depth * _kept(model, stream, split, lanes),
        working=_BRANCH_TENSORS * stream
        + ffn
        + _REFINER_TENSORS * (model.refiner.blocks + 1) * text,
        encoders=encoder_bytes / shards,
    )


def _kept(model: ModelConfig, stream: float, split: Split, lanes: int) -> float:
    """Bytes that one block keeps for the backward pass; its input always, or on the host."""
    mlp_ratio, head = model.mlp_ratio, model.width // model.heads
    # Queries, keys and values of the self-attention are kept as its kernel reads them.
    padding = 3 * (math.ceil(head / lanes) * lanes / head - 1) * stream / split.tensor
    attended = 2 * math.ceil(head / lanes) * lanes / head * stream / split.tensor
    # Queries, keys, values, results and projections of both attentions, and both sides of the FFN.
    products = (8 / split.tensor + 3 + mlp_ratio / split.tensor) * stream
    return {
        "offload": 0.05 * stream,
        "full": stream,
        "attention": stream + attended,
        "branches": 4 * stream + attended,
        "dots": stream + products + padding,
        "none": stream + products + padding + (12 + 2 * mlp_ratio / split.tensor) * stream,
    }[model.remat]


def parameter_count(config: Config, streams: tuple[TextStream, ...]) -> int:
    """Parameters of the trained model, refiners included, by tracing its initialisation."""
    # One block tells of all; the policy changes none of them.
    model = dataclasses.replace(config.model, depth=1, remat="none")
    counted = _traced_count(model, config.vae.channels, streams)
    return counted.total + (config.model.depth - 1) * counted.block


class _Counted(NamedTuple):
    total: int
    block: int


@functools.cache
def _traced_count(model: ModelConfig, channels: int, streams: tuple[TextStream, ...]) -> _Counted:
    import jax
    import jax.numpy as jnp

    from lidit_jax.models.lidit import LIDiT

    side = model.patch
    shape = jax.ShapeDtypeStruct
    inputs = (
        shape((1, side, side, channels), jnp.float32),
        shape((1,), jnp.float32),
        tuple(shape((1, s.tokens, s.width), jnp.float32) for s in streams),
        tuple(shape((1, s.tokens), jnp.bool_) for s in streams),
    )
    init = functools.partial(LIDiT(model).init, crop=tuple(s.crop for s in streams))
    parameters = jax.eval_shape(init, jax.random.key(0), *inputs)["params"]
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
