"""Caption dropout: some samples train with the empty prompt, for classifier-free guidance."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

if TYPE_CHECKING:  # the name of a structure, which jaxtyping takes as text
    K = TypeVar("K")


def sample_keys(key: Key[Array, ""], global_indices: Int[Array, " B"]) -> Key[Array, " B"]:
    """Return one random key per sample, independent of the host and batch it is in.

    Args:
      key: key made of the run's seed and the training step.
      global_indices: indices of the samples in the global batch or data set.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, global_indices)


def drop_captions(
    keys: Key[Array, " B"],
    features: PyTree[Float[Array, "B ?S ?*layers ?D"], " K"],
    masks: PyTree[Bool[Array, "B ?S"], " K"],
    unconditional_features: PyTree[Float[Array, "1 ?N ?*layers ?D"], " K"],
    unconditional_masks: PyTree[Bool[Array, "1 ?N"], " K"],
    probability: float,
) -> tuple[PyTree[Float[Array, "B ?S ?*layers ?D"], " K"], PyTree[Bool[Array, "B ?S"], " K"]]:
    """Replace the prompt by the empty prompt for a random share of samples, in all streams.

    Args:
      keys: from `sample_keys`, used for nothing else; one draw per sample decides for all streams.
      features: LLM hidden states, one array per stream k.
      masks: their masks.
      unconditional_features: hidden states of the empty prompt, *with* the instruction, as
        returned by encoding `[""]`; N <= S, shorter ones are padded on the right.
      unconditional_masks: their masks.
      probability: share of samples to drop, 0 to 1.

    Returns:
      The features and the masks, with unchanged shapes and types.
    """
    dropped = jax.vmap(lambda key: jax.random.bernoulli(key, probability))(keys)

    def swap(prompt: Array, empty: Array) -> Array:
        padding = [(0, 0)] * empty.ndim
        padding[1] = (0, prompt.shape[1] - empty.shape[1])
        empty = jnp.pad(empty, padding).astype(prompt.dtype)
        return jnp.where(dropped.reshape((-1,) + (1,) * (prompt.ndim - 1)), empty, prompt)

    return (
        tuple(swap(*stream) for stream in zip(features, unconditional_features, strict=True)),
        tuple(swap(*stream) for stream in zip(masks, unconditional_masks, strict=True)),
    )
