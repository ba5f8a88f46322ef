"""Captions as token ids of a fixed number per stream, for online encoding during training.

The number is fixed so that one compiled program serves all batches of a shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lidit_jax.encoders.conditions import PromptEncoders
from lidit_jax.models.flops import TextStream

_LENGTH_STEP = 8
_SPARE = 8
"""Tokens beyond the longest known caption, for captions that were not looked at."""


class CaptionTokenizer:
    """Tokenizer of captions for every stream; longer captions are truncated and counted."""

    def __init__(self, encoders: PromptEncoders, longest: Sequence[int]):
        """Fix the numbers of tokens.

        Args:
          encoders: one per stream.
          longest: prompt tokens of the longest known caption, per stream, from `prompt_tokens`.
        """
        self._encoders = encoders
        self.streams = tuple(
            _stream(encoders, number, tokens) for number, tokens in enumerate(longest)
        )
        """Sizes of each encoder's features."""
        self.truncated = 0
        """Number of captions that were truncated so far."""

    def __call__(self, captions: Sequence[str]) -> dict[str, tuple[np.ndarray, ...]]:
        """Return "ids" and "masks" of the captions, both K of [B, S_k]."""
        batches = [
            stream.tokenize(
                captions,
                self._encoders.prompt_format,
                max_prompt_tokens=self._encoders.max_prompt_tokens,
                length=sizes.tokens,
            )
            for stream, sizes in zip(self._encoders.streams, self.streams, strict=True)
        ]
        cut = max(batch.truncated for batch in batches)
        if cut and not self.truncated:
            print(
                "the ends of captions longer than the batches' "
                f"{'/'.join(str(sizes.tokens) for sizes in self.streams)} tokens are cut",
                flush=True,
            )
        self.truncated += cut
        return {
            "ids": tuple(batch.ids for batch in batches),
            "masks": tuple(batch.mask for batch in batches),
        }

    def example(self, rows: int) -> dict[str, Any]:
        """Return the `jax.ShapeDtypeStruct`s of a batch of captions."""
        shapes = [(rows, sizes.tokens) for sizes in self.streams]
        return {
            "ids": tuple(jax.ShapeDtypeStruct(shape, np.int32) for shape in shapes),
            "masks": tuple(jax.ShapeDtypeStruct(shape, bool) for shape in shapes),
        }


def prompt_tokens(encoders: PromptEncoders, captions: Sequence[str]) -> list[int]:
    """Return the largest number of prompt tokens of the captions in each stream.

    Args:
      encoders: one per stream.
      captions: cleaned captions; without any, that of the empty prompt.
    """
    found = []
    for stream in encoders.streams:
        batch = stream.tokenize(
            [*captions, ""],
            encoders.prompt_format,
            max_prompt_tokens=encoders.max_prompt_tokens,
        )
        found.append(int(batch.mask.sum(axis=1).max()) - batch.prefix_length - 1)
    return found


def _stream(encoders: PromptEncoders, number: int, longest: int) -> TextStream:
    stream = encoders.streams[number]
    prefix = stream.tokenize([""], encoders.prompt_format).prefix_length
    most = prefix + encoders.max_prompt_tokens + 1
    if stream.tokenizer.max_positions is not None:
        most = min(most, stream.tokenizer.max_positions)
    tokens = -(-(prefix + longest + 1) // _LENGTH_STEP) * _LENGTH_STEP + _SPARE
    return TextStream(stream.width, min(tokens, most), prefix, encoders.layer_counts[number])
