"""Abstract input shapes of LI-DiT, for initialization, parameter counts and compilation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lidit_jax.models.flops import TextStream
from lidit_jax.models.lidit import LIDiT


class LIDiTInputs(NamedTuple):
    """Array arguments of `LIDiT.__call__`, in order; `prefix_lengths` follows them."""

    x_t: Any
    t: Any
    features: tuple[Any, ...]
    masks: tuple[Any, ...]


def abstract_inputs(
    streams: Sequence[TextStream], latent_shape: tuple[int, int, int], batch: int = 1
) -> LIDiTInputs:
    """Return shapes and types of the network's training inputs without allocating arrays.

    Args:
      streams: width and length of each encoder's features, stored in bfloat16 for training.
      latent_shape: rows h, columns w and channels C of a latent.
      batch: batch size B.
    """
    shape = jax.ShapeDtypeStruct
    return LIDiTInputs(
        shape((batch, *latent_shape), jnp.float32),
        shape((batch,), jnp.float32),
        tuple(shape((batch, s.tokens, *s.token_shape), jnp.bfloat16) for s in streams),
        tuple(shape((batch, s.tokens), jnp.bool_) for s in streams),
    )


def initialize(
    model: LIDiT,
    key: jax.Array,
    streams: Sequence[TextStream],
    latent_shape: tuple[int, int, int],
) -> Any:
    """Initialize (boxed) parameters, which depend on widths and channels, not on lengths or sides.

    Args:
      model: the network.
      key: random key.
      streams: sizes of the text streams.
      latent_shape: rows h, columns w and channels C of a latent.
    """
    shapes = abstract_inputs(streams, latent_shape)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return model.init(key, *zeros, tuple(stream.prefix_length for stream in streams))["params"]


def abstract_parameters(model: LIDiT, streams: Sequence[TextStream], channels: int) -> Any:
    """Return boxed shapes of the parameters by tracing their initialization.

    Args:
      model: the network.
      streams: sizes of the text streams.
      channels: latent channels C.
    """
    side = model.config.patch
    return jax.eval_shape(
        lambda key: initialize(model, key, streams, (side, side, channels)), jax.random.key(0)
    )
