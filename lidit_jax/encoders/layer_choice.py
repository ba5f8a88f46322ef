"""Layers of an encoder that a configuration chooses, by number."""

from __future__ import annotations

from collections.abc import Sequence

from lidit_jax.config.values import LayerChoice
from lidit_jax.errors import LiditError

Layers = int | tuple[int, ...]
"""One hidden state of an encoder, or several in this order; negative numbers count from the end."""


def chosen_layers(choice: LayerChoice, num_layers: int) -> Layers:
    """Return the layers that an entry of `config.encoders.layers` names.

    Args:
      choice: one layer, several, or "all": the output of every block, without the embeddings.
      num_layers: number of the encoder's transformer blocks.

    Returns:
      The number of one layer, or a tuple of at least two.

    Raises:
      LiditError: when a layer does not exist, or two numbers name the same one.
    """
    if isinstance(choice, int):
        blocks_below(choice, num_layers)
        return choice
    layers = tuple(range(1, num_layers + 1)) if choice == "all" else choice
    first: dict[int, int] = {}
    for layer in layers:
        blocks = blocks_below(layer, num_layers)
        if blocks in first:
            raise LiditError(f"layers {first[blocks]} and {layer} are the same: name it once")
        first[blocks] = layer
    one, *others = layers
    return layers if others else one


def layer_count(layers: int | Sequence[int]) -> int:
    """Return the number of layers: one, or those of a sequence."""
    return 1 if isinstance(layers, int) else len(layers)


def highest_block(layers: Layers, num_layers: int) -> int:
    """Return the number of blocks below the highest layer; 0 for the embeddings alone.

    Raises:
      LiditError: when a layer does not exist.
    """
    every = (layers,) if isinstance(layers, int) else layers
    return max(blocks_below(layer, num_layers) for layer in every)


def stored_layers(layers: Layers) -> int | list[int]:
    """Return layers as JSON stores them: a number, or a list of several."""
    return layers if isinstance(layers, int) else list(layers)


def blocks_below(layer: int, num_layers: int) -> int:
    """Return the number of blocks below `hidden_states[layer]` (`num_layers` + 1 states).

    Raises:
      LiditError: when the layer does not exist.
    """
    blocks = layer if layer >= 0 else num_layers + 1 + layer
    if not 0 <= blocks <= num_layers:
        raise LiditError(
            f"layer {layer} does not exist: this encoder has {num_layers} blocks, "
            f"use -{num_layers + 1} to {num_layers}"
        )
    return blocks
