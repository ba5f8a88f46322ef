"""Tokenizers of CLIP without a `tokenizer.json`, built from `vocab.json` and `merges.txt`.

The pipelines of Stable Diffusion and SDXL carry nothing else. They are built as transformers does:
lower case, words cut by CLIP's expression, byte-level pairs with a mark at the end of a word.
"""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from lidit_jax.errors import LiditError
from lidit_jax.weights.built_tokenizers import built_once
from lidit_jax.weights.huggingface import read_json

FILES = ("vocab.json", "merges.txt")
"""Files of a tokenizer of byte pairs."""

_CLASSES = ("CLIPTokenizer", "CLIPTokenizerFast")
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def convert(folder: Path) -> Path:
    """Return a cached folder with the `tokenizer.json` of a CLIP's vocabulary and merges.

    Raises:
      LiditError: when the files are damaged or are not those of a CLIP; says how to make the file.
    """
    files = [folder / name for name in FILES]
    return built_once(files, "clip", lambda: _read(folder))


def clip_tokenizer(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], *, begin: str, end: str, unknown: str
) -> tokenizers.Tokenizer:
    """Build CLIP's tokenizer.

    Args:
      vocabulary: id of every token.
      merges: pairs of tokens that are joined, first those that are joined first.
      begin: text of the token before each text.
      end: text of the token after each text.
      unknown: text of the unknown token.
    """
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocabulary,
            merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            fuse_unk=False,
            unk_token=unknown,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = dict.fromkeys((begin, end, unknown))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    first, last = ((token, vocabulary[token]) for token in (begin, end))
    tokenizer.post_processor = processors.RobertaProcessing(last, first, False, False)
    return tokenizer


def _read(folder: Path) -> tokenizers.Tokenizer:
    settings = read_json(folder / "tokenizer_config.json")
    if (kind := settings.get("tokenizer_class")) not in _CLASSES:
        raise LiditError(
            f"{folder} has the vocabulary of a {kind}, not of CLIP, and lacks a tokenizer.json: "
            f"make one by transformers.AutoTokenizer.from_pretrained({str(folder)!r})"
            f".save_pretrained({str(folder)!r})"
        )
    merges = _read_merges(folder / "merges.txt")
    vocabulary = read_json(folder / "vocab.json")
    begin, end, unknown = (
        _text(settings.get(f"{name}_token", default))
        for name, default in (("bos", _BEGIN), ("eos", _END), ("unk", _END))
    )
    for token in (begin, end):
        if token not in vocabulary:
            raise LiditError(f"{folder / 'vocab.json'} lacks {token!r}: download it again")
    try:
        return clip_tokenizer(vocabulary, merges, begin=begin, end=end, unknown=unknown)
    except Exception as error:  # the binding raises plain Exception
        raise LiditError(
            f"{folder}: vocab.json and merges.txt do not belong together ({error}): download both "
            "again"
        ) from error


def _read_merges(file: Path) -> list[tuple[str, str]]:
    """Read pairs, one per line, after a line that states the version."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise LiditError(f"{file} is missing or damaged: download it again") from error
    pairs = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    if wrong := next((pair for pair in pairs if len(pair) != 2), None):
        raise LiditError(f"{file} has a line of {len(wrong)} tokens, not 2: download it again")
    return [(first, second) for first, second in pairs]


def _text(token: str | dict) -> str:
    return token["content"] if isinstance(token, dict) else token
