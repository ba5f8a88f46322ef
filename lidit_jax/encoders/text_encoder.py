"""A frozen text encoder: a tokenizer, a transformer and its weights behind one interface."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from lidit_jax.encoders.bert import Bert
from lidit_jax.encoders.decoder import Decoder, PrefixCache
from lidit_jax.encoders.prompt import PromptFormat, TokenBatch
from lidit_jax.encoders.sources import locate
from lidit_jax.encoders.tokenizer import PromptTokenizer
from lidit_jax.errors import LiditError
from lidit_jax.weights import gguf, huggingface, tables

_ARCHITECTURES = {
    "llama": (Decoder, tables.DECODER),
    "mistral": (Decoder, tables.DECODER),
    "qwen2": (Decoder, tables.DECODER),
    "qwen3": (Decoder, tables.DECODER),
    "bert": (Bert, tables.BERT),
}
_DTYPES = ("float32", "bfloat16")


class TextEncoder:
    """Prompts to hidden states. The numeric methods are pure: parameters are an argument.

    Attributes:
      name: what it was loaded by.
      params: nested dict of arrays; those of blocks are stacked on the first axis.
      tokenizer: the prompt tokenizer.
      folder: the Hugging Face folder it was read from.
    """

    def __init__(
        self,
        name: str,
        model: Decoder | Bert,
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
        """Blocks L of the transformer."""
        return self.model.num_layers

    @property
    def causal(self) -> bool:
        """Whether a token sees only the tokens before it."""
        return self.model.causal

    @property
    def default_layer(self) -> int:
        """Decoders: -3, the output of the third block from the end, without the final norm (paper,
        5.1). BERT: -1, the last layer."""
        return self.model.default_layer

    @functools.cached_property
    def fingerprint(self) -> dict[str, str]:
        """sha256 of the weights and of the tokenizer, which a checkpoint remembers.

        Of an encoder converted from GGUF: of that file, which holds both.
        """
        source = self.folder / gguf.SOURCE_FILE
        if source.is_file():
            digest = json.loads(source.read_text())["sha256"]
            return {"weights": digest, "tokenizer": digest}
        weights = [gguf.file_sha256(f) for f in huggingface.safetensors_files(self.folder)]
        return {
            "weights": "+".join(weights),
            "tokenizer": gguf.file_sha256(self.folder / "tokenizer.json"),
        }

    def tokenize(
        self, prompts: Sequence[str], prompt_format: PromptFormat | None = None, **options: Any
    ) -> TokenBatch:
        """Instruction, prompt and end token as ids: see `PromptTokenizer.__call__`."""
        return self.tokenizer(prompts, prompt_format or PromptFormat(), **options)

    def hidden_states(
        self, params: dict[str, Any], ids: Int32[Array, "B S"], mask: Bool[Array, "B S"]
    ) -> Float[Array, "L+1 B S D"]:
        """All layers, as Hugging Face transformers counts them: the embeddings first, then the
        output of every block, the last one with the final norm."""
        return self.model.hidden_states(params, ids, mask)

    def features(
        self,
        params: dict[str, Any],
        ids: Int32[Array, "B S"],
        mask: Bool[Array, "B S"],
        layer: int,
        prefix: PrefixCache | None = None,
    ) -> Float[Array, "B S D"]:
        """`hidden_states(...)[layer]`, running only the blocks it needs.

        Finite everywhere; what stands at padded tokens means nothing. `prefix` (decoders only, from
        `prefix_cache`) skips the instruction and changes nothing else.

        Raises:
          LiditError: when the layer does not exist.
        """
        if prefix is None:
            return self.model.features(params, ids, mask, layer)
        return self.model.features(params, ids, mask, layer, prefix)

    def prefix_cache(
        self, params: dict[str, Any], prompt_format: PromptFormat, layer: int
    ) -> PrefixCache | None:
        """What `features` needs to skip the constant instruction; None where it cannot: for
        encoders that are not causal, and for an empty instruction."""
        ids = self.tokenizer.prefix(prompt_format)
        if not self.causal or not ids:
            return None
        return self.model.prefix_cache(params, jnp.asarray(ids, jnp.int32), layer)


def load(source: str, *, dtype: str = "float32") -> TextEncoder:
    """Loads an encoder; see `lidit_jax.encoders.load`."""
    if dtype not in _DTYPES:
        raise LiditError(f"dtype={dtype!r}: choose one of {', '.join(_DTYPES)}")
    folder = locate(source)
    config = huggingface.read_config(folder)
    family = config.get("model_type")
    if family not in _ARCHITECTURES:
        raise LiditError(
            f"{folder} holds a {family!r} model: supported are {', '.join(_ARCHITECTURES)}"
        )
    architecture, table = _ARCHITECTURES[family]
    try:
        model = architecture.from_huggingface(config)
    except KeyError as error:
        raise LiditError(f"{folder / 'config.json'} lacks {error}: download it again") from error
    tokenizer = PromptTokenizer.from_folder(folder, model.max_positions)
    files = huggingface.safetensors_files(folder)
    params = huggingface.load_params(files, table, model.shapes(), dtype)
    return TextEncoder(source, model, params, tokenizer, folder)
