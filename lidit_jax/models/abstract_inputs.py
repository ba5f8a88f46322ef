"""What LI-DiT is called with, as shapes: enough to initialize it, count it or compile it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lidit_jax.models.flops import TextStream
from lidit_jax.models.lidit import LIDiT


class LIDiTInputs(NamedTuple):
    """The arrays of one call of `LIDiT`, in its order; `prefix_lengths` comes after them."""

    x_t: Any
    t: Any
    features: tuple[Any, ...]
    masks: tuple[Any, ...]


def abstract_inputs(
    streams: Sequence[TextStream], latent_shape: tuple[int, int, int], batch: int = 1
) -> LIDiTInputs:
    """Shapes and types of the network's inputs in training; nothing is allocated.

    Args:
      streams: width and length of each encoder's features, which training keeps in bfloat16.
      latent_shape: rows h, columns w and channels C of a latent.
      batch: samples B.
    """
    shape = jax.ShapeDtypeStruct
    return LIDiTInputs(
        shape((batch, *latent_shape), jnp.float32),
        shape((batch,), jnp.float32),
        tuple(shape((batch, s.tokens, s.width), jnp.bfloat16) for s in streams),
        tuple(shape((batch, s.tokens), jnp.bool_) for s in streams),
    )


def initialize(
    model: LIDiT,
    key: jax.Array,
    streams: Sequence[TextStream],
    latent_shape: tuple[int, int, int],
) -> Any:
    """Fresh (boxed) parameters; they depend on widths and channels, not on lengths and sides.

    Args:
      model: the network.
      key: decides all of them.
      streams: the text.
      latent_shape: rows h, columns w and channels C of a latent.
    """
    shapes = abstract_inputs(streams, latent_shape)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return model.init(key, *zeros, tuple(stream.prefix_length for stream in streams))["params"]


def abstract_parameters(model: LIDiT, streams: Sequence[TextStream], channels: int) -> Any:
    """Boxed shapes of the parameters, by tracing their initialization; nothing is allocated.

    Args:
      model: the network.
      streams: the text.
      channels: latent channels C.
    """
    side = model.config.patch
    return jax.eval_shape(
        lambda key: initialize(model, key, streams, (side, side, channels)), jax.random.key(0)
    )
