"""Text conditions of LI-DiT: features and masks of prompts from every encoder stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int32, PyTree

from lidit_jax import encoders
from lidit_jax.config.prompt_format import PromptFormat, TokenBatch
from lidit_jax.config.prompt_text import prompt_text
from lidit_jax.config.schema import EncoderConfig
from lidit_jax.config.values import LayerChoice
from lidit_jax.encoders.decoder import PrefixCache
from lidit_jax.encoders.layer_choice import Layers, chosen_layers, layer_count, stored_layers
from lidit_jax.encoders.relocated import resolve_sources
from lidit_jax.encoders.text_encoder import TextEncoder
from lidit_jax.errors import LiditError

if TYPE_CHECKING:  # the name of a structure, which jaxtyping takes as text
    K = TypeVar("K")

_LENGTH_STEP = 16


class TextConditions(NamedTuple):
    """Text features and masks of B prompts; one array per stream k."""

    features: tuple[Float[Array, "B _S ... _D"], ...]
    """[B, S_k, D_k], or [B, S_k, n, D_k] for several layers."""
    masks: tuple[Bool[Array, "B _S"], ...]


class FrozenStream(NamedTuple):
    """Arrays of one stream's encoder, passed as an argument to compiled programs."""

    params: Any
    """Encoder weights."""
    instruction: PrefixCache | None
    """Prefix cache of the constant instruction; causal encoders only."""


class PromptEncoders:
    """Frozen text encoders of a configuration, one per stream."""

    def __init__(self, config: EncoderConfig, mesh: Mesh | None = None):
        """Load the encoders, sharded over the mesh if given.

        Raises:
          LiditError: when an encoder cannot be found or read.
        """
        self.streams: list[TextEncoder] = [
            encoders.load(source, dtype=config.dtype, mesh=mesh) for source in config.sources
        ]
        choices = config.layers or [stream.default_layer for stream in self.streams]
        self.layers: list[Layers] = [
            _layers(stream, choice) for stream, choice in zip(self.streams, choices, strict=True)
        ]
        self.prompt_format = PromptFormat(
            config.instruction, config.system_prompt, config.lowercase
        )
        self.max_prompt_tokens = config.max_prompt_tokens
        # Causal encoders process the constant instruction once, not for every prompt.
        self._instructions = [
            stream.prefix_cache(stream.params, self.prompt_format, layer)
            for stream, layer in zip(self.streams, self.layers, strict=True)
        ]

    @classmethod
    def from_checkpoint(
        cls,
        config: EncoderConfig,
        trained_with: Sequence[dict[str, Any]],
        mesh: Mesh | None = None,
        places: Mapping[str, str] | None = None,
    ) -> PromptEncoders:
        """Load the encoders of a checkpoint, searching for those that have moved.

        Args:
          config: configuration of the checkpoint.
          trained_with: the checkpoint's description of each stream.
          mesh: shards the weights over its axes; None for one device.
          places: new locations of moved encoders, see `lidit_jax.encoders.relocated`.

        Raises:
          LiditError: when an encoder cannot be found, or differs from that of the checkpoint.
        """
        _same_number(config.sources, trained_with)
        sources = resolve_sources(config.sources, trained_with, places)
        encoders = cls(dataclasses.replace(config, sources=sources), mesh)
        encoders.check(trained_with)
        return encoders

    @property
    def layer_counts(self) -> tuple[int, ...]:
        """Number of layers of each stream."""
        return tuple(map(layer_count, self.layers))

    @property
    def frozen(self) -> tuple[FrozenStream, ...]:
        """Arrays that `features` takes as its first argument, sharded as loaded."""
        return tuple(
            FrozenStream(stream.params, instruction)
            for stream, instruction in zip(self.streams, self._instructions, strict=True)
        )

    def features(
        self,
        frozen: Sequence[FrozenStream],
        ids: PyTree[Int32[Array, "B ?S"], " K"],
        masks: PyTree[Bool[Array, "B ?S"], " K"],
    ) -> tuple[Float[Array, "B _S ... _D"], ...]:
        """Compute features of tokenized prompts; pure, for use inside `jax.jit`.

        Args:
          frozen: the property of that name.
          ids: token ids of each stream, instruction first, padded on the right.
          masks: valid tokens of each stream.
        """
        return tuple(
            stream.features(arrays.params, tokens, mask, layer, arrays.instruction)
            for stream, layer, arrays, tokens, mask in zip(
                self.streams, self.layers, frozen, ids, masks, strict=True
            )
        )

    @property
    def description(self) -> list[dict[str, Any]]:
        """Return the description of each stream that checkpoints store, for `check`."""
        return [
            {
                "source": stream.name,
                "layer": stored_layers(layer),
                "fingerprint": stream.fingerprint,
                "settings": stream.settings,
                "prefix": self.prompt_format.prefix,
            }
            for stream, layer in zip(self.streams, self.layers, strict=True)
        ]

    def check(self, trained_with: Sequence[dict[str, Any]]) -> None:
        """Check that the encoders are those that a model was trained with.

        Raises:
          LiditError: names the first difference.
        """
        _same_number(self.streams, trained_with)
        for ours, theirs in zip(self.description, trained_with, strict=True):
            # Version 0.1 began without a digest of the settings.
            known = {"settings": ours["settings"]} | theirs
            for name in ("layer", "fingerprint", "settings", "prefix"):
                if ours[name] != known[name]:
                    raise LiditError(
                        f"encoder {ours['source']!r} is not the one of this checkpoint: its {name} "
                        f"is {ours[name]!r}, was {known[name]!r}; install that version"
                    )

    def check_lengths(self, prompts: Sequence[str]) -> None:
        """Check prompts as `encode` does, without running the encoders."""
        cleaned = _cleaned(prompts)
        for stream in self.streams:
            self._tokenize(stream, cleaned, overflow="error")

    def encode(
        self, prompts: Sequence[str], overflow: str = "error"
    ) -> tuple[TextConditions, tuple[int, ...]]:
        """Encode cleaned prompts, padded to one of a few lengths to limit compilation.

        Args:
          prompts: B texts.
          overflow: for prompts longer than `max_prompt_tokens`: "error" refuses, "truncate" cuts.

        Returns:
          The conditions, and the number of instruction tokens of each stream.

        Raises:
          PromptTooLongError: when a prompt is longer than `max_prompt_tokens`, under "error".
          LiditError: when a prompt contains an unpaired surrogate.
        """
        prompts = _cleaned(prompts)
        features, masks, prefix_lengths = [], [], []
        for stream, layer, instruction in zip(
            self.streams, self.layers, self._instructions, strict=True
        ):
            tokens = self._tokenize(stream, prompts, overflow)
            extra = -tokens.ids.shape[1] % _LENGTH_STEP
            tokens = dataclasses.replace(
                tokens,
                ids=np.pad(tokens.ids, ((0, 0), (0, extra))),
                mask=np.pad(tokens.mask, ((0, 0), (0, extra))),
            )
            features.append(_portable(stream.encode(tokens, layer, instruction)))
            masks.append(jnp.asarray(tokens.mask))
            prefix_lengths.append(tokens.prefix_length)
        return TextConditions(tuple(features), tuple(masks)), tuple(prefix_lengths)

    def _tokenize(self, stream: TextEncoder, prompts: Sequence[str], overflow: str) -> TokenBatch:
        return stream.tokenize(
            prompts,
            self.prompt_format,
            max_prompt_tokens=self.max_prompt_tokens,
            overflow=overflow,
        )


def _layers(stream: TextEncoder, choice: LayerChoice) -> Layers:
    try:
        return chosen_layers(choice, stream.num_layers)
    except LiditError as error:
        raise LiditError(f"config.encoders.layers of {stream.name!r}: {error}") from error


def _cleaned(prompts: Sequence[str]) -> list[str]:
    return [prompt_text(f"prompt {i}", prompt) for i, prompt in enumerate(prompts, start=1)]


def _same_number(ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    if len(ours) != len(theirs):
        raise LiditError(
            f"config.encoders.sources has {len(ours)} encoders, this checkpoint was trained with "
            f"{len(theirs)}: name the same"
        )


def _portable(array: Array) -> Array | np.ndarray:
    """Return an array that programs of all processes accept: arrays that are bound to devices of
    this process alone become NumPy arrays."""
    bound = jax.process_count() > 1 and array.is_fully_addressable
    return np.asarray(array) if bound else array


def pad_conditions(conditions: TextConditions, lengths: Sequence[int]) -> TextConditions:
    """Pad every stream to the given number of tokens, or cut excess padding."""

    def fit(array: Array, length: int) -> Array:
        padding = [(0, 0)] * array.ndim
        padding[1] = (0, max(length - array.shape[1], 0))
        return jnp.pad(array[:, :length], padding)

    return TextConditions(
        tuple(fit(f, n) for f, n in zip(conditions.features, lengths, strict=True)),
        tuple(fit(m, n) for m, n in zip(conditions.masks, lengths, strict=True)),
    )
