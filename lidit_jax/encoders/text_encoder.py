"""Frozen text encoder: tokenizer, transformer and weights behind one interface."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int32

from lidit_jax.config.prompt_format import PromptFormat, TokenBatch
from lidit_jax.config.schema import EncoderConfig
from lidit_jax.config.values import choices
from lidit_jax.encoders import families
from lidit_jax.encoders.clip import Clip
from lidit_jax.encoders.decoder import Decoder, PrefixCache
from lidit_jax.encoders.family import Encoder
from lidit_jax.encoders.layer_choice import Layers, highest_block
from lidit_jax.encoders.locations import (
    content_digests,
    locate_encoder,
    locate_tokenizer,
    tokenizer_home,
)
from lidit_jax.encoders.settings_digest import settings_digest
from lidit_jax.encoders.sharding import encoder_shardings
from lidit_jax.encoders.tokenizer import PromptTokenizer
from lidit_jax.encoders.tokenizer_check import load_tokenizer
from lidit_jax.errors import LiditError
from lidit_jax.weights import gguf, huggingface

_DTYPES = choices(EncoderConfig, "dtype")


class TextEncoder:
    """Frozen text encoder from prompts to hidden states; numeric methods are pure in `params`.

    Attributes:
      name: source that it was loaded from.
      params: nested dict of arrays; blocks are stacked on the first axis.
      tokenizer: the prompt tokenizer.
      folder: the Hugging Face folder it was read from.
    """

    def __init__(
        self,
        name: str,
        model: Encoder,
        params: dict[str, Any],
        tokenizer: PromptTokenizer,
        folder: Path,
    ):
        self.name = name
        self.model = model
        self.params = params
        self.tokenizer = tokenizer
        self.folder = folder

    @property
    def width(self) -> int:
        """Width D of the features."""
        return self.model.width

    @property
    def num_layers(self) -> int:
        """Number of transformer blocks L."""
        return self.model.num_layers

    @property
    def causal(self) -> bool:
        """Whether attention is causal."""
        return self.model.causal

    @property
    def default_layer(self) -> int:
        """Default feature layer: -3 for decoders, without the final norm (paper, 5.1); -1 for the
        other encoders, with the final norm."""
        return self.model.default_layer

    @property
    def dtype(self) -> str:
        """Type of the stored weights: "float32", "bfloat16" or "int8"."""
        kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(self.params)}
        return "int8" if "int8" in kinds else str(self.params["embedding"].dtype)

    @functools.cached_property
    def fingerprint(self) -> dict[str, str]:
        """sha256 of the weights and of the tokenizer, stored in checkpoints, and the type of the
        weights unless it is float32."""
        kept = {} if self.dtype == "float32" else {"dtype": self.dtype}
        return content_digests(self.folder) | kept

    @functools.cached_property
    def reading(self) -> dict[str, str]:
        """sha256 of the tokenizer in use where it differs from version 0.1's reading, else empty.

        It differs for tokenizers that transformers reads differently from their file, for those
        built from other files than `tokenizer.json`, and for GGUF files with a normalizer or with
        added tokens that are not special. `fingerprint` does not change, so that old checkpoints
        match; this distinguishes prepared features.
        """
        backend, converted = self.tokenizer.backend, (self.folder / gguf.SOURCE_FILE).is_file()
        home = tokenizer_home(self.folder)
        ordinary = [t for t in backend.get_added_tokens_decoder().values() if not t.special]
        if self.tokenizer.folder == home and not (
            converted and (backend.normalizer is not None or ordinary)
        ):
            return {}
        return {"reading": gguf.file_sha256(self.tokenizer.folder / "tokenizer.json")}

    @functools.cached_property
    def settings(self) -> str:
        """Digest of what is read from `config.json` and `tokenizer_config.json`, such as the RoPE
        scaling and the tokens around a text."""
        tokenizer = self.tokenizer
        return settings_digest(self.model, tokenizer.begin, tokenizer.end, tokenizer.pad)

    def tokenize(
        self, prompts: Sequence[str], prompt_format: PromptFormat | None = None, **options: Any
    ) -> TokenBatch:
        """Tokenize instruction, prompt and end token; see `PromptTokenizer.__call__`."""
        return self.tokenizer(prompts, prompt_format or PromptFormat(), **options)

    def hidden_states(
        self, params: dict[str, Any], ids: Int32[Array, "B S"], mask: Bool[Array, "B S"]
    ) -> Float[Array, "states B S D"]:
        """Return all layers in the order of Hugging Face transformers: the embeddings, then the
        output of every block, the last one with the final norm."""
        return self.model.hidden_states(params, ids, mask)

    def features(
        self,
        params: dict[str, Any],
        ids: Int32[Array, "B S"],
        mask: Bool[Array, "B S"],
        layer: Layers,
        prefix: PrefixCache | None = None,
    ) -> Float[Array, "B S *layers D"]:
        """Return `hidden_states(...)[layer]`, running only the blocks below it.

        Several layers are returned in their order as [B, S, n, D], and cost only the blocks below
        the highest one.
        Values are finite everywhere; those at padding tokens are meaningless. `prefix` (decoders
        only, from `prefix_cache`) skips the instruction without changing the result.

        Raises:
          LiditError: when the layer does not exist.
        """
        if prefix is None:
            return self.model.features(params, ids, mask, layer)
        if not isinstance(self.model, Decoder):
            raise LiditError(f"encoder {self.name!r} is not a decoder: only decoders use a prefix")
        return self.model.features(params, ids, mask, layer, prefix)

    def constant_prefix(self, length: int) -> bool:
        """Return whether all texts of up to `length` tokens have the same features of a prefix."""
        return isinstance(self.model, Decoder) and self.model.constant_prefix(length)

    def encode(
        self, tokens: TokenBatch, layer: Layers, prefix: PrefixCache | None = None
    ) -> Float[Array, "B S *layers D"]:
        """Compute `features` of a batch with this encoder's own parameters, compiled.

        The prefix cache is not used if any row does not start with the whole instruction (left
        padding).
        """
        if not tokens.mask[:, : tokens.prefix_length].all():
            prefix = None
        return self._compiled(self.params, tokens.ids, tokens.mask, layer=layer, prefix=prefix)

    @functools.cached_property
    def _compiled(self) -> Callable[..., Float[Array, "B S *layers D"]]:
        return jax.jit(self.features, static_argnames="layer")

    @functools.cached_property
    def _compiled_prefix(self) -> Callable[..., PrefixCache]:
        assert isinstance(self.model, Decoder)  # nothing else has a cache
        return jax.jit(self.model.prefix_cache, static_argnames="layer")

    def prefix_cache(
        self, params: dict[str, Any], prompt_format: PromptFormat, layer: Layers
    ) -> PrefixCache | None:
        """Return the cache with which `features` skips the constant instruction; None for encoders
        that are not decoders, for an empty instruction, and where only the embeddings are used."""
        ids = np.asarray(self.tokenizer.prefix(prompt_format), np.int32)
        if not isinstance(self.model, Decoder) or not len(ids):
            return None
        if not highest_block(layer, self.num_layers):
            return None
        return self._compiled_prefix(params, ids, layer=layer)


def load(source: str, *, dtype: str = "float32", mesh: Mesh | None = None) -> TextEncoder:
    """Load an encoder; see `lidit_jax.encoders.load`."""
    if dtype not in _DTYPES:
        raise LiditError(f"dtype={dtype!r}: choose one of {', '.join(_DTYPES)}")
    folder = locate_encoder(source)
    path = folder / "config.json"
    config = huggingface.read_json(path)
    try:
        model, table = families.read(config)
    except KeyError as error:
        raise LiditError(f"{path} lacks {error}: download it again") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise LiditError(
            f"{path} has a value of the wrong type ({error}): download it again"
        ) from error
    except LiditError as error:
        raise LiditError(f"{folder}: {error}") from error
    tokenizer = load_tokenizer(locate_tokenizer(folder), model.max_positions)
    _check_embedded(tokenizer, model.vocabulary, tokenizer_home(folder))
    if isinstance(model, Clip):
        model = dataclasses.replace(model, padding_token=tokenizer.pad)
    files = huggingface.safetensors_files(folder)
    shapes = model.shapes()
    params = huggingface.load_params(files, table, shapes, dtype, encoder_shardings(shapes, mesh))
    return TextEncoder(source, model, params, tokenizer, folder)


def _check_embedded(tokenizer: PromptTokenizer, rows: int, folder: Path) -> None:
    """Check that every token has one of the table's rows; JAX would silently clamp its id."""
    tokens = tokenizer.backend.get_vocab(with_added_tokens=True)
    beyond = sorted((number, token) for token, number in tokens.items() if number >= rows)
    if beyond:
        number, token = beyond[0]
        more = f" and {len(beyond) - 1} more" if len(beyond) > 1 else ""
        raise LiditError(
            f"{folder}: the tokenizer has token {number} ({token!r}){more}, but the model has "
            f"embeddings for {rows} tokens: put the model's own tokenizer.json there, or take the "
            "token out of it"
        )
