"""Tokenizers inside GGUF files, built as transformers and llama.cpp do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)

from lidit_jax.errors import LiditError
from lidit_jax.weights.sentencepiece_tokenizer import t5_tokenizer

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_REMEDY = "use the model's Hugging Face folder"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIX}"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIX}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {
    "smollm": (r"\p{N}", _GPT2),
    "llama-bpe": (_LLAMA3,),
    "qwen2": (_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),),
    "gpt-4o": (_GPT4O,),
}
"""Pre-tokenization patterns of byte-pair encoding, by llama.cpp's `tokenizer.ggml.pre`; the last
one is that of Phi-4-mini."""
_COMPOSED = {"qwen2": "Qwen2Tokenizer"}
"""Tokenizers with Unicode normalization (NFC), which the file does not state, and their classes in
transformers."""
_BLANKS = 100
"""Number of tokens `<extra_id_0>` and so on that T5 has."""


def build_tokenizer(file: Path, fields: dict[str, Any]) -> tuple[Tokenizer, dict[str, Any]]:
    """Return the tokenizer of a GGUF file, and the content of its `tokenizer_config.json`.

    Args:
      file: named in errors.
      fields: the file's keys and values.

    Raises:
      LiditError: for a tokenizer of another kind, a key that is missing, and values that do not
        belong together.
    """
    try:
        tokenizer, config = _built(file, fields)
        tokens = fields["tokenizer.ggml.tokens"]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
            index = fields.get(f"tokenizer.ggml.{key}_token_id")
            if index is not None:
                config[f"{name}_token"] = tokens[index]
    except KeyError as error:
        raise LiditError(f"{file} lacks {error}: download it again") from error
    except (IndexError, ValueError) as error:
        raise LiditError(
            f"{file}: the parts of its tokenizer do not belong together ({error}): download it "
            "again"
        ) from error
    return tokenizer, config


def _built(file: Path, fields: dict[str, Any]) -> tuple[Tokenizer, dict[str, Any]]:
    kind, split = fields["tokenizer.ggml.model"], fields.get("tokenizer.ggml.pre")
    if kind == "t5":
        return _t5(file, fields)
    if kind == "llama" and (build := _BUILDERS.get(fields["general.architecture"])):
        return build(file, fields)
    if kind == "gpt2" and split in _SPLITS:
        return _byte_pairs(fields, split)
    raise LiditError(
        f"{file} has a {kind!r} tokenizer cut as {split!r}: GGUF is read for gpt2 tokenizers "
        f"cut as {', '.join(_SPLITS)}, and for those of T5, Gemma 3 and Phi-3, {_REMEDY}"
    )


def _byte_pairs(fields: dict[str, Any], split: str) -> tuple[Tokenizer, dict[str, Any]]:
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    # Llama 3 looks up whole words in the vocabulary before merging.
    bpe = models.BPE(vocabulary, merges, ignore_merges=split == "llama-bpe")
    tokenizer = Tokenizer(bpe)
    if split in _COMPOSED:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(regex), "isolated") for regex in _SPLITS[split]),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(_added(fields, tokens))
    begins = fields.get("tokenizer.ggml.add_bos_token", split == "llama-bpe")
    kind = _COMPOSED.get(split, "PreTrainedTokenizerFast")
    return tokenizer, {"tokenizer_class": kind, "add_bos_token": bool(begins)}


def _gemma(file: Path, fields: dict[str, Any]) -> tuple[Tokenizer, dict[str, Any]]:
    """Build Gemma's tokenizer, whose pieces are in the order in which they were merged."""
    _expect_prefix(file, fields, False)
    # The file spells runs of spaces as such, the tokenizer looks them up with its own sign.
    spaces = re.compile(" +")
    tokens = [
        "▁" * len(token) if spaces.fullmatch(token) else token
        for token in fields["tokenizer.ggml.tokens"]
    ]
    tokenizer = _character_pairs(fields, tokens, tokens)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    added = _added(fields, fields["tokenizer.ggml.tokens"])
    tokenizer.add_tokens([token for token in added if not spaces.fullmatch(token.content)])
    begins = fields.get("tokenizer.ggml.add_bos_token", True)
    return tokenizer, {"tokenizer_class": "GemmaTokenizer", "add_bos_token": bool(begins)}


def _phi3(file: Path, fields: dict[str, Any]) -> tuple[Tokenizer, dict[str, Any]]:
    """Build the tokenizer of Phi-3, which puts a space before a text."""
    _expect_prefix(file, fields, True)
    tokens, scores = (fields[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores"))
    ranked = sorted(zip(tokens, scores, strict=True), key=lambda piece: -piece[1])
    tokenizer = _character_pairs(fields, tokens, [token for token, _ in ranked])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.add_tokens(_added(fields, tokens))
    begins = fields.get("tokenizer.ggml.add_bos_token", True)
    return tokenizer, {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": bool(begins)}


def _expect_prefix(file: Path, fields: dict[str, Any], wanted: bool) -> None:
    """Check whether a space is put before each text."""
    if fields.get("tokenizer.ggml.add_space_prefix", True) is not wanted:
        raise LiditError(
            f"{file}: tokenizer.ggml.add_space_prefix={not wanted} is not supported for "
            f"{fields['general.architecture']} (read: {wanted}): {_REMEDY}"
        )


def _character_pairs(
    fields: dict[str, Any], tokens: Sequence[str], ranked: Sequence[str]
) -> Tokenizer:
    """Build byte-pair encoding of characters, with bytes for those that are in no piece.

    Args:
      fields: the file's keys and values.
      tokens: the vocabulary.
      ranked: the same pieces in the order in which pairs are merged to them.
    """
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = [
        (token[:cut], token[cut:])
        for token in ranked
        for cut in range(len(token) - 1, 0, -1)
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    unknown = tokens[fields["tokenizer.ggml.unknown_token_id"]]
    bpe = models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(bpe)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def _t5(file: Path, fields: dict[str, Any]) -> tuple[Tokenizer, dict[str, Any]]:
    """Build T5's unigram tokenizer."""
    for key in ("add_space_prefix", "remove_extra_whitespaces", "add_eos_token"):
        if fields.get(f"tokenizer.ggml.{key}", True) is not True:
            raise LiditError(
                f"{file}: tokenizer.ggml.{key}=False is not supported for T5 (read: True): "
                f"{_REMEDY}"
            )
    tokens = list(fields["tokenizer.ggml.tokens"])
    blanks = []
    if "<extra_id_0>" not in tokens:
        # They have no piece in SentencePiece's model, so llama.cpp gives them names of its own.
        unnamed = [i for i, token in enumerate(tokens) if re.fullmatch(r"\[PAD\d+\]", token)]
        for number, i in enumerate(unnamed[:_BLANKS]):
            tokens[i] = f"<extra_id_{min(len(unnamed), _BLANKS) - 1 - number}>"
            blanks.append(tokens[i])
    added = _added(fields, tokens) + [
        AddedToken(blank, normalized=False, special=True) for blank in blanks
    ]
    end = tokens[fields["tokenizer.ggml.eos_token_id"]]
    tokenizer = t5_tokenizer(
        list(zip(tokens, fields["tokenizer.ggml.scores"], strict=True)),
        added,
        unknown=fields.get("tokenizer.ggml.unknown_token_id", 2),
        end=end,
        charsmap=bytes(
            byte % 256 for byte in fields.get("tokenizer.ggml.precompiled_charsmap", ())
        ),
    )
    named = sum(token.startswith("<extra_id_") for token in tokens)
    return tokenizer, {
        "tokenizer_class": "T5Tokenizer",
        "add_bos_token": False,
        "extra_ids": named,
    }


def _added(fields: dict[str, Any], tokens: Sequence[str]) -> list[AddedToken]:
    """Return the tokens that are matched before a text is cut."""
    return [
        AddedToken(token, normalized=False, special=kind != _USER_DEFINED)
        for token, kind in zip(tokens, fields["tokenizer.ggml.token_type"], strict=True)
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]


_BUILDERS = {"gemma3": _gemma, "phi3": _phi3}
"""Builders of SentencePiece's tokenizers of byte-pair encoding, by architecture."""
