"""Cached text features of all captions, computed once with a frozen encoder.

Captions differ in length, so their tokens are concatenated in one bfloat16 array with offsets. In
a causal encoder the instruction's features are the same for every prompt and stored once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import jax
import ml_dtypes
import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from lidit_jax.config.prompt_format import PromptFormat
from lidit_jax.data.cache import content_key, fill
from lidit_jax.encoders import TextEncoder

_VERSION = 2
"""Version, increased when the same encoder files give other features: 1 ignored the RoPE scaling of
GGUF files."""
_CHUNK = 2048
_BATCH = 64
_LENGTH_STEP = 8


@dataclass(frozen=True)
class TextFeatures:
    """Text features of a list of captions for one stream."""

    name: ClassVar[str] = "features"
    """Key of these values in a record."""

    tokens: Float[np.ndarray, "T D"]
    """Features of all captions, concatenated; without the instruction in a causal stream."""
    offsets: Int[np.ndarray, " ends"]
    """Offset of each caption's first token in `tokens`."""
    prefix: Float[np.ndarray, "P D"]
    """The instruction's features, shared by all captions; empty for a bidirectional encoder."""
    prefix_length: int
    """Number of instruction tokens of every caption."""
    length: int
    """Number of tokens S of the longest caption, instruction included, rounded up."""
    truncated: int
    """Number of captions that were truncated."""

    @property
    def width(self) -> int:
        """Width D of the features."""
        return self.tokens.shape[1]

    def __getitem__(self, caption: int) -> tuple[Float[np.ndarray, "S D"], Bool[np.ndarray, " S"]]:
        """Return the features and mask of one caption, padded on the right."""
        own = self.tokens[self.offsets[caption] : self.offsets[caption + 1]]
        shared, count = len(self.prefix), len(self.prefix) + len(own)
        features = np.zeros((self.length, self.tokens.shape[1]), ml_dtypes.bfloat16)
        features[:shared] = self.prefix
        features[shared:count] = own
        return features, np.arange(self.length) < count

    def take(
        self, captions: Int32[np.ndarray, " B"]
    ) -> tuple[Float[np.ndarray, "B S D"], Bool[np.ndarray, "B S"]]:
        """Return the features and masks of several captions."""
        features, masks = zip(*map(self.__getitem__, captions.tolist()), strict=True)
        return np.stack(features), np.stack(masks)


def prepare_text_features(
    encoder: TextEncoder,
    captions: Sequence[str],
    prompt_format: PromptFormat,
    layer: int,
    max_prompt_tokens: int,
    folder: Path,
    progress: Callable[[int, int], None],
) -> TextFeatures:
    """Encode the captions, or find their features cached under `folder`.

    Args:
      encoder: the frozen encoder of this stream.
      captions: distinct captions; a caption's position is its id.
      prompt_format: instruction and layout.
      layer: block whose output is used, counted from the end.
      max_prompt_tokens: longer prompts are truncated and counted.
      folder: parent of all cached data.
      progress: called with (captions done, all captions).
    """
    batch = encoder.tokenize(
        captions, prompt_format, max_prompt_tokens=max_prompt_tokens, overflow="truncate"
    )
    shared = batch.prefix_length if encoder.causal else 0
    counts = batch.mask.sum(axis=1)
    # Short captions first: each batch is then padded to little more than its own length.
    order = np.argsort(counts, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(counts - shared)])
    description = {
        "version": _VERSION,
        "encoder": encoder.fingerprint | encoder.reading,
        "layer": layer,
        "prompt_format": asdict(prompt_format),
        "max_prompt_tokens": max_prompt_tokens,
        "captions": content_key("captions", {"captions": list(captions)}),
    }
    compute = jax.jit(encoder.features, static_argnames="layer")
    # A causal encoder computes the constant instruction once, then only each caption's tokens.
    instruction = encoder.prefix_cache(encoder.params, prompt_format, layer)

    def write(arrays: Mapping[str, np.ndarray], start: int, stop: int) -> None:
        for first in range(start, stop, _BATCH):
            rows = order[first : min(first + _BATCH, stop)]
            length = _round_up(int(counts[rows].max()), _LENGTH_STEP)
            padded = np.resize(rows, _BATCH)  # the last batch repeats rows, to keep one shape
            ids, mask = batch.ids[padded, :length], batch.mask[padded, :length]
            if length > ids.shape[1]:
                extra = ((0, 0), (0, length - ids.shape[1]))
                ids, mask = np.pad(ids, extra), np.pad(mask, extra)
            features = np.asarray(
                compute(encoder.params, ids, mask, layer=layer, prefix=instruction)
            )
            for row, values in zip(rows, features, strict=False):
                own = values[shared : counts[row]].astype(ml_dtypes.bfloat16)
                arrays["tokens"][offsets[row] : offsets[row + 1]] = own.view(np.uint16)
            if shared:
                arrays["prefix"][:] = (
                    features[0, :shared].astype(ml_dtypes.bfloat16).view(np.uint16)
                )

    target = folder / content_key("text", description)
    width = encoder.width
    target = fill(
        target,
        description,
        {
            "tokens": ((int(offsets[-1]), width), np.dtype(np.uint16)),
            "prefix": ((shared, width), np.dtype(np.uint16)),
        },
        len(captions),
        _CHUNK,
        write,
        progress,
    )
    return TextFeatures(
        tokens=np.load(target / "tokens.npy", mmap_mode="r").view(ml_dtypes.bfloat16),
        offsets=offsets,
        prefix=np.load(target / "prefix.npy").view(ml_dtypes.bfloat16),
        prefix_length=batch.prefix_length,
        length=padded_length(batch.mask),
        truncated=batch.truncated,
    )


def padded_length(masks: Bool[np.ndarray, "n S"]) -> int:
    """Return the padded number of tokens in training: those of the longest caption, rounded up."""
    return _round_up(int(masks.sum(axis=1).max()), _LENGTH_STEP)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
