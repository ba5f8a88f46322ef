"""Captions as token ids, for encoders that run while training."""

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
    """One stream's token ids of a list of captions; takes the place of its `TextFeatures`."""

    name: ClassVar[str] = "ids"
    """What a record calls these values."""

    ids: Int32[np.ndarray, "n S"]
    """Instruction, caption, end token, padding."""
    mask: Bool[np.ndarray, "n S"]
    prefix_length: int
    """Instruction tokens of every caption."""
    truncated: int
    """Captions that were cut to the longest prompt."""
    width: int
    """Width D of the features that the encoder will make of them."""

    @property
    def length(self) -> int:
        """Tokens S of every row: one length, so that one program serves all batches."""
        return self.ids.shape[1]

    def __getitem__(self, caption: int) -> tuple[Int32[np.ndarray, " S"], Bool[np.ndarray, " S"]]:
        """The ids and mask of one caption."""
        return self.ids[caption], self.mask[caption]

    def take(
        self, captions: Int32[np.ndarray, " B"]
    ) -> tuple[Int32[np.ndarray, "B S"], Bool[np.ndarray, "B S"]]:
        """The ids and masks of several captions."""
        return self.ids[captions], self.mask[captions]


def tokenize_captions(
    encoder: TextEncoder,
    captions: Sequence[str],
    prompt_format: PromptFormat,
    max_prompt_tokens: int,
) -> CaptionTokens:
    """Tokenizes captions; seconds, where encoding them takes hours.

    Args:
      encoder: the frozen encoder of this stream.
      captions: without repetitions; a caption's place is its id.
      prompt_format: instruction and layout.
      max_prompt_tokens: longer prompts are cut and counted.
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
