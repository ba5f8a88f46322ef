"""Tokenization of prompts with a model's tokenizer, without importing transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from lidit_jax.config.prompt_format import PromptFormat, TokenBatch
from lidit_jax.errors import LiditError
from lidit_jax.weights.huggingface import read_json

_SHOWN = 40


class PromptTooLongError(LiditError):
    """Error for a prompt with more tokens than allowed.

    Attributes:
      shown: the prompt, or its beginning.
      tokens: number of tokens of the prompt.
      limit: largest number allowed.
    """

    def __init__(self, number: int, prompt: str, tokens: int, limit: int, remedy: str):
        self.shown = prompt if len(prompt) <= _SHOWN else prompt[:_SHOWN] + "…"
        self.tokens, self.limit = tokens, limit
        super().__init__(
            f"prompt {number} ({self.shown!r}) has {tokens} tokens, the limit is {limit}: {remedy}"
        )


class PromptTokenizer:
    """Tokenizer that joins begin token, instruction, prompt and end token.

    Instruction and prompt are tokenized separately and joined, so the instruction's tokens are
    the same in every row and its length is the prefix length.

    Attributes:
      backend: tokenizer of the `tokenizers` library.
      begin: token ids before the instruction.
      end: token id after the prompt.
      pad: padding token id.
      max_positions: largest number of tokens per row, if the model has a limit.
      folder: folder that the tokenizer was read from.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        begin: Sequence[int],
        end: int,
        pad: int,
        max_positions: int | None,
        folder: Path,
    ):
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.backend = tokenizer
        self.begin = tuple(begin)
        self.end = end
        self.pad = pad
        self.max_positions = max_positions
        self.folder = folder

    @classmethod
    def from_folder(cls, folder: Path, max_positions: int | None = None) -> PromptTokenizer:
        """Read `tokenizer.json` and `tokenizer_config.json`.

        Raises:
          LiditError: when a file is missing or damaged, or no end token is defined.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise LiditError(
                f"{path} is missing: save the tokenizer there with "
                "transformers.AutoTokenizer.from_pretrained(...).save_pretrained(...)"
            )
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the binding raises plain Exception
            raise LiditError(f"{path} is damaged ({error}): download it again") from error
        config = read_json(folder / "tokenizer_config.json")
        # The tokenizer's own template defines the tokens around a text.
        around = tokenizer.encode("a")
        special = around.special_tokens_mask
        text = special.index(0)
        begin = around.ids[:text]
        end = [i for i, s in zip(around.ids[text:], special[text:], strict=True) if s][:1]
        if config.get("add_bos_token") is False:
            begin = []
        elif config.get("add_bos_token") and not begin:
            # As in transformers, none is added if the name or its token is missing.
            bos = _id(tokenizer, config, "bos_token")
            begin = [] if bos is None else [bos]
        end = end[0] if end else _id(tokenizer, config, "eos_token")
        if end is None:
            raise LiditError(f"{folder / 'tokenizer_config.json'} names no eos_token: add one")
        pad = _id(tokenizer, config, "pad_token")
        return cls(tokenizer, begin, end, end if pad is None else pad, max_positions, folder)

    def prefix(self, prompt_format: PromptFormat) -> list[int]:
        """Return the token ids before every prompt; their number is the prefix length."""
        return [*self.begin, *self.encode([prompt_format.prefix])[0]]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts without special tokens."""
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def __call__(
        self,
        prompts: Sequence[str],
        prompt_format: PromptFormat,
        *,
        max_prompt_tokens: int = 256,
        length: int | None = None,
        overflow: str = "truncate",
        padding: str = "right",
    ) -> TokenBatch:
        """Tokenize prompts of any length, including the empty prompt.

        Args:
          prompts: B texts.
          prompt_format: instruction before each prompt.
          max_prompt_tokens: largest number of prompt tokens, without instruction and end token.
          length: row length S, including the instruction; None for the longest row.
          overflow: for longer prompts: "truncate" cuts and counts them, "error" refuses.
          padding: side of the padding, "right" or "left".

        Raises:
          PromptTooLongError: for a prompt over the limit under `overflow="error"`.
          LiditError: when `length` leaves no room for a prompt.
        """
        prefix = self.prefix(prompt_format)
        prefix_length = len(prefix)
        limit = self._limit(prefix_length, max_prompt_tokens, length)
        texts = [prompt.lower() for prompt in prompts] if prompt_format.lowercase else prompts
        encoded = self.encode(texts)
        too_long = [i for i, tokens in enumerate(encoded) if len(tokens) > limit]
        if too_long and overflow == "error":
            i = too_long[0]
            remedy = "shorten it or raise encoders.max_prompt_tokens"
            if limit < max_prompt_tokens:
                remedy = (
                    f"shorten it; the encoder reads {prefix_length + limit + 1} tokens, of which "
                    f"{prefix_length} are the instruction's (encoders.instruction)"
                )
            raise PromptTooLongError(i + 1, prompts[i], len(encoded[i]), limit, remedy)
        rows = [[*prefix, *tokens[:limit], self.end] for tokens in encoded]
        S = max((len(row) for row in rows), default=prefix_length + 1) if length is None else length
        ids = np.full((len(rows), S), self.pad, np.int32)
        mask = np.zeros((len(rows), S), bool)
        for i, row in enumerate(rows):
            place = slice(0, len(row)) if padding == "right" else slice(S - len(row), S)
            ids[i, place], mask[i, place] = row, True
        return TokenBatch(ids, mask, prefix_length, truncated=len(too_long))

    def _limit(self, prefix_length: int, max_prompt_tokens: int, length: int | None) -> int:
        """Return the number of prompt tokens that fit between instruction and end token."""
        if self.max_positions is not None and self.max_positions < prefix_length + 2:
            raise LiditError(
                f"the instruction has {prefix_length} tokens and this encoder reads "
                f"{self.max_positions}: shorten encoders.instruction"
            )
        lengths = [s for s in (length, self.max_positions) if s is not None]
        if lengths and min(lengths) <= prefix_length:
            raise LiditError(
                f"length={min(lengths)} leaves no room for a prompt: the instruction has "
                f"{prefix_length} tokens, use at least {prefix_length + 1}"
            )
        return min([max_prompt_tokens, *(s - prefix_length - 1 for s in lengths)])


def _id(tokenizer: tokenizers.Tokenizer, config: dict[str, Any], name: str) -> int | None:
    token = config.get(name)
    if isinstance(token, dict):
        token = token["content"]
    return None if token is None else tokenizer.token_to_id(token)
