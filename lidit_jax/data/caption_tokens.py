"""Captions as token ids, for online encoding during training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int32

from lidit_jax.config.prompt_format import PromptFormat
from lidit_jax.data.text_features import padded_length
from lidit_jax.encoders import TextEncoder


@dataclass(frozen=True)
class CaptionTokens:
    """Token ids of a list of captions for one stream, in place of its `TextFeatures`."""

    name: ClassVar[str] = "ids"
    """Key of these values in a record."""

    ids: Int32[np.ndarray, "n S"]
    """Token ids of instruction, caption, end token and padding."""
    mask: Bool[np.ndarray, "n S"]
    prefix_length: int
    """Number of instruction tokens of every caption."""
    truncated: int
    """Number of captions that were truncated."""
    width: int
    """Width D of the encoder's features."""

    @property
    def length(self) -> int:
        """Number of tokens S per row, fixed so that one compiled program serves all batches."""
        return self.ids.shape[1]

    def __getitem__(self, caption: int) -> tuple[Int32[np.ndarray, " S"], Bool[np.ndarray, " S"]]:
        """Return the ids and mask of one caption."""
        return self.ids[caption], self.mask[caption]

    def take(
        self, captions: Int32[np.ndarray, " B"]
    ) -> tuple[Int32[np.ndarray, "B S"], Bool[np.ndarray, "B S"]]:
        """Return the ids and masks of several captions."""
        return self.ids[captions], self.mask[captions]


def tokenize_captions(
    encoder: TextEncoder,
    captions: Sequence[str],
    prompt_format: PromptFormat,
    max_prompt_tokens: int,
) -> CaptionTokens:
    """Tokenize captions, which takes seconds where encoding them takes hours.

    Args:
      encoder: the frozen encoder of this stream.
      captions: distinct captions; a caption's position is its id.
      prompt_format: instruction and layout.
      max_prompt_tokens: longer prompts are truncated and counted.
    """
    batch = encoder.tokenize(
        captions, prompt_format, max_prompt_tokens=max_prompt_tokens, overflow="truncate"
    )
    padding = ((0, 0), (0, padded_length(batch.mask) - batch.mask.shape[1]))
    return CaptionTokens(
        np.pad(batch.ids, padding),
        np.pad(batch.mask, padding),
        batch.prefix_length,
        batch.truncated,
        encoder.width,
    )
