"""Encoding of captions by every stream, in batches of few shapes, short captions first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Bool, Float, Int32

from lidit_jax.data.cache.feature_bytes import Storage, packed, quantize
from lidit_jax.encoders.conditions import FrozenStream, PromptEncoders
from lidit_jax.errors import LiditError
from lidit_jax.parallel.mesh import batch_sharding
from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES

_BATCH = 64
_FEWEST_TOKENS = 16


class EncodedTexts(NamedTuple):
    """Features of some texts in one stream."""

    packed: list[bytes]
    """Features of each text, without the instruction in a causal stream."""
    tokens: int
    """Number of tokens of the longest text, instruction included."""
    truncated: int
    """Number of texts that were cut."""
    squares: float
    """Sum of the squares of all features; 0 for bfloat16."""
    errors: float
    """Sum of their squared rounding errors in int8; 0 for bfloat16."""


class CaptionEncoder:
    """Encoder of captions in batches of few shapes, on the devices that hold the weights."""

    def __init__(self, encoders: PromptEncoders, storage: Storage):
        """Bind the encoders.

        Args:
          encoders: one per stream, on devices of this process only.
          storage: type of the stored values.
        """
        self.encoders, self._storage = encoders, storage
        self._programs = [
            jax.jit(
                lambda arrays, ids, mask, number=number: self._compute(number, arrays, ids, mask)
            )
            for number in range(len(encoders.streams))
        ]

    def __call__(
        self, stream: int, texts: Sequence[str], advance: Callable[[int], None]
    ) -> EncodedTexts:
        """Encode texts.

        Args:
          stream: number of the stream.
          texts: distinct cleaned captions.
          advance: receives the number of texts encoded since the last call.
        """
        encoder, arrays = self.encoders.streams[stream], self.encoders.frozen[stream]
        tokens = encoder.tokenize(
            texts,
            self.encoders.prompt_format,
            max_prompt_tokens=self.encoders.max_prompt_tokens,
            overflow="truncate",
        )
        shared = 0 if arrays.instruction is None else tokens.prefix_length
        counts = tokens.mask.sum(axis=1)
        if shared and not encoder.constant_prefix(longest := int(counts.max(initial=0))):
            raise LiditError(
                f"a caption of {longest} tokens is longer than the first context of encoder "
                f"{encoder.name!r}, from where its features of the instruction differ between "
                "captions and cannot be kept once: lower encoders.max_prompt_tokens"
            )
        order = np.argsort(counts, kind="stable")
        result = [b""] * len(texts)
        squares = errors = 0.0
        size = min(_BATCH, 1 << max(len(texts) - 1, 0).bit_length())
        for first in range(0, len(order), size):
            rows = order[first : first + size]
            padded = np.resize(rows, size)  # the last batch repeats rows, to keep one shape
            length = padded_tokens(int(counts[rows].max()), encoder.tokenizer.max_positions)
            parts = self._run(
                stream, arrays, _fit(tokens.ids[padded], length), _fit(tokens.mask[padded], length)
            )
            for place, row in enumerate(rows):
                own = [part[place, shared : counts[row]] for part in parts]
                result[row] = packed(own[:1] if self._storage == "bfloat16" else own[1::-1])
                if self._storage == "int8":
                    squares += float(own[2].sum(dtype=np.float64))
                    errors += float(own[3].sum(dtype=np.float64))
            advance(len(rows))
        return EncodedTexts(result, int(counts.max(initial=0)), tokens.truncated, squares, errors)

    def _run(
        self,
        stream: int,
        arrays: FrozenStream,
        ids: Int32[np.ndarray, "B S"],
        mask: Bool[np.ndarray, "B S"],
    ) -> list[np.ndarray]:
        """Compute a batch, divided among the devices that hold the weights."""
        sharding = jax.tree.leaves(arrays.params)[0].sharding
        mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
        with ExitStack() as stack:
            if isinstance(mesh, Mesh) and len(ids) % mesh.size == 0:
                stack.enter_context(jax.set_mesh(mesh))
                stack.enter_context(nn.logical_axis_rules(LOGICAL_AXIS_RULES))
                ids, mask = jax.device_put((ids, mask), batch_sharding(mesh))
            return [np.asarray(part) for part in self._programs[stream](arrays, ids, mask)]

    def _compute(
        self, stream: int, arrays: FrozenStream, ids: Int32[Array, "B S"], mask: Bool[Array, "B S"]
    ) -> tuple[Array, ...]:
        encoder, layer = self.encoders.streams[stream], self.encoders.layers[stream]
        features: Float[Array, "B S *layers D"] = encoder.features(
            arrays.params, ids, mask, layer, arrays.instruction
        )
        if self._storage == "bfloat16":
            return (features.astype(jnp.bfloat16),)
        return tuple(quantize(features))


def padded_tokens(tokens: int, most: int | None = None) -> int:
    """Return the padded length of a batch: one of few, 15 tokens or a quarter longer at most.

    Args:
      tokens: tokens of the longest row.
      most: largest number of tokens of the model, if it has a limit.
    """
    step = max(_FEWEST_TOKENS, 1 << max((tokens - 1).bit_length() - 3, 0))
    padded = -(-tokens // step) * step
    return padded if most is None else max(min(padded, most), tokens)


def _fit(rows: Any, length: int) -> Any:
    """Pad or cut rows of tokens to a length."""
    rows = rows[:, :length]
    return np.pad(rows, ((0, 0), (0, length - rows.shape[1])))
