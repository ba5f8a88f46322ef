"""Tokenizers of T5 without a `tokenizer.json`, built from the SentencePiece model beside it.

Diffusion pipelines often carry nothing else. The model is read and its tokenizer built as
transformers does, without the `sentencepiece` package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from lidit_jax.errors import LiditError
from lidit_jax.weights.built_tokenizers import built_once
from lidit_jax.weights.huggingface import read_json

FILES = ("spiece.model", "tokenizer.model")
"""Names of SentencePiece models."""

_CLASSES = ("T5Tokenizer", "T5TokenizerFast")
_UNIGRAM = 1
_CONTROL, _USER_DEFINED = 3, 4


def convert(folder: Path) -> Path:
    """Return a cached folder with the `tokenizer.json` of a folder's SentencePiece model.

    Raises:
      LiditError: when the model is damaged or is not that of a T5; says how to make the file.
    """
    file = next(folder / name for name in FILES if (folder / name).is_file())
    return built_once([file], "sentencepiece", lambda: _read(file))


def t5_tokenizer(
    pieces: Sequence[tuple[str, float]],
    added: Sequence[AddedToken],
    *,
    unknown: int,
    end: str,
    charsmap: bytes,
) -> tokenizers.Tokenizer:
    """Build T5's tokenizer.

    Args:
      pieces: text and log-probability of every token, in the order of their ids.
      added: those of them that are matched before a text is cut.
      unknown: id of the unknown token.
      end: text of the token after each text.
      charsmap: SentencePiece's compiled normalization, empty for none.
    """
    tokenizer = tokenizers.Tokenizer(models.Unigram(list(pieces), unknown, byte_fallback=False))
    if charsmap:
        tokenizer.normalizer = normalizers.Precompiled(charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_tokens(list(added))
    around = (end, tokenizer.token_to_id(end))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", end], pair=["$A", end, "$B", end], special_tokens=[around]
    )
    return tokenizer


def _read(file: Path) -> tokenizers.Tokenizer:
    from transformers.utils import sentencepiece_model_pb2_new

    settings = read_json(file.parent / "tokenizer_config.json")
    messages: Any = sentencepiece_model_pb2_new  # its classes are made at import
    model = messages.ModelProto()
    try:
        model.ParseFromString(file.read_bytes())
    except Exception as error:  # each implementation of protobuf has its own
        raise LiditError(f"{file} is damaged ({error}): download it again") from error
    rules, training = model.normalizer_spec, model.trainer_spec
    kind = settings.get("tokenizer_class")
    if (
        kind not in _CLASSES
        or training.model_type != _UNIGRAM
        or training.byte_fallback
        or not (rules.add_dummy_prefix and rules.remove_extra_whitespaces)
    ):
        raise LiditError(
            f"{file} is no T5 tokenizer ({kind}) and lacks a tokenizer.json beside it: make one by "
            f"transformers.AutoTokenizer.from_pretrained({str(file.parent)!r})"
            f".save_pretrained({str(file.parent)!r})"
        )
    blanks = [f"<extra_id_{i}>" for i in reversed(range(settings.get("extra_ids", 100)))]
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    pieces += [(blank, 0.0) for blank in blanks]
    kinds = [piece.type for piece in model.pieces] + [_CONTROL] * len(blanks)
    tokens = [(text, kind) for (text, _), kind in zip(pieces, kinds, strict=True)]
    unknown, end = pieces[training.unk_id][0], settings.get("eos_token", "</s>")
    end = end["content"] if isinstance(end, dict) else end
    added = [
        AddedToken(text, normalized=False, special=kind != _USER_DEFINED)
        for text, kind in tokens
        if kind in (_CONTROL, _USER_DEFINED) or text == unknown
    ]
    tokenizer = t5_tokenizer(
        pieces, added, unknown=training.unk_id, end=end, charsmap=rules.precompiled_charsmap
    )
    for token, index in _ids_beside(file.parent).items():
        if tokenizer.token_to_id(token) != index:
            raise LiditError(
                f"{file.parent} gives {token!r} the id {index}, which its SentencePiece model does "
                "not: make a tokenizer.json with transformers.AutoTokenizer"
            )
    return tokenizer


def _ids_beside(folder: Path) -> dict[str, int]:
    """Return the added tokens that the files beside a SentencePiece model name."""
    file = folder / "added_tokens.json"
    named = read_json(file) if file.is_file() else {}
    decoder = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    return named | {token["content"]: int(index) for index, token in decoder.items()}
