"""Text features of many captions, computed once with a frozen encoder and kept on disk.

Captions differ in length, so their tokens lie end to end in one bfloat16 array with offsets. Under
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
"""Raised when an encoder of the same files gives other features: 1 ignored the RoPE scaling of GGUF
files."""
_CHUNK = 2048
_BATCH = 64
_LENGTH_STEP = 8


@dataclass(frozen=True)
class TextFeatures:
    """One stream's features of a list of captions."""

    name: ClassVar[str] = "features"
    """What a record calls these values."""

    tokens: Float[np.ndarray, "T D"]
    """Tokens of all captions end to end; a causal stream leaves out the instruction."""
    offsets: Int[np.ndarray, " ends"]
    """Where each caption's tokens start in `tokens`."""
    prefix: Float[np.ndarray, "P D"]
    """The instruction's features, shared by all captions; empty for a bidirectional encoder."""
    prefix_length: int
    """Instruction tokens of every caption."""
    length: int
    """Tokens of the longest caption, instruction included, rounded up: S."""
    truncated: int
    """Captions that were cut to the longest prompt."""

    @property
    def width(self) -> int:
        """Width D of the features."""
        return self.tokens.shape[1]

    def __getitem__(self, caption: int) -> tuple[Float[np.ndarray, "S D"], Bool[np.ndarray, " S"]]:
        """The features and mask of one caption, padded on the right."""
        own = self.tokens[self.offsets[caption] : self.offsets[caption + 1]]
        shared, count = len(self.prefix), len(self.prefix) + len(own)
        features = np.zeros((self.length, self.tokens.shape[1]), ml_dtypes.bfloat16)
        features[:shared] = self.prefix
        features[shared:count] = own
        return features, np.arange(self.length) < count

    def take(
        self, captions: Int32[np.ndarray, " B"]
    ) -> tuple[Float[np.ndarray, "B S D"], Bool[np.ndarray, "B S"]]:
        """The features and masks of several captions."""
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
    """Encodes the captions, or finds them encoded, under `folder`.

    Args:
      encoder: the frozen encoder of this stream.
      captions: without repetitions; a caption's place is its id.
      prompt_format: instruction and layout.
      layer: block whose output is used, counted from the end.
      max_prompt_tokens: longer prompts are cut and counted.
      folder: parent of all prepared data.
      progress: told (captions done, all captions).
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
    # A causal encoder reads the constant instruction once; each caption pays for its own tokens.
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
    """Tokens to which training pads every caption: those of the longest, rounded up."""
    return _round_up(int(masks.sum(axis=1).max()), _LENGTH_STEP)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
