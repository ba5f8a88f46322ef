"""Conversion of GGUF files to Hugging Face folders, cached on disk.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

A quantized file takes several seconds to read, so it is converted once and kept in the user's
cache; from then on it is a Hugging Face folder like any other.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lidit_jax.errors import LiditError
from lidit_jax.io.paths import cache_dir
from lidit_jax.weights.gguf_metadata import model_config
from lidit_jax.weights.tables import GGUF_DECODER
from lidit_jax.weights.tensor_writer import TensorSpec, write_tensors

if TYPE_CHECKING:
    import gguf

SOURCE_FILE = "source.json"
"""File beside the converted ones with name and sha256 of the GGUF file."""

_FORMAT = 3
_PIECE_VALUES = 1 << 24
"""Number of values that are dequantized at once: 64 MiB of float32."""
_ROUNDED = {"b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}
"""The sha256 of files whose quantized weights are rounded to float16, as version 0.1 rounded all.

This one is the packaged SmolLM2. The demo was trained on its features, and a checkpoint identifies
an encoder by the sha256 of its file, so the same file must give the same features. Exact weights
would change them by 2e-4 of their size.
"""
_CONTROL, _USER_DEFINED = 3, 4
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {
    "smollm": (r"\p{N}", _GPT2),
    "llama-bpe": (_LLAMA3,),
    "qwen2": (_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),),
}
"""Pre-tokenization patterns of byte-pair encoding, by llama.cpp's `tokenizer.ggml.pre`."""
_COMPOSED = {"qwen2": "Qwen2Tokenizer"}
"""Tokenizers with Unicode normalization (NFC), which the file does not state, and their classes in
transformers."""


def convert(file: Path) -> Path:
    """Convert a GGUF file to a Hugging Face folder, or return the cached one.

    Weights keep their values: F16 and BF16 stay as they are, quantized ones become float32. The
    folder is named by the file's sha256 and appears in one rename, so an interrupted or concurrent
    conversion leaves nothing incomplete.

    Raises:
      LiditError: when the file is damaged, or of a family or tokenizer that is not supported.
    """
    sha256 = file_sha256(file)
    folder = cache_dir() / "encoders" / f"{file.stem}-{sha256[:16]}-v{_FORMAT}"
    if (folder / SOURCE_FILE).is_file():
        if json.loads((folder / SOURCE_FILE).read_text())["sha256"] == sha256:
            return folder
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write_folder(file, sha256, temporary)
        source = {"file": file.name, "sha256": sha256}
        (temporary / SOURCE_FILE).write_text(json.dumps(source))
        temporary.chmod(0o755)
        try:
            os.replace(temporary, folder)
        except OSError:
            if not (folder / SOURCE_FILE).is_file():  # else another process has finished first
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_folder(file: Path, sha256: str, folder: Path) -> None:
    reader = _open(file)
    fields = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    config = model_config(file, fields, [tensor.name for tensor in reader.tensors])
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    tokenizer, tokenizer_config = _tokenizer(file, fields)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2))
    tensors = _named(file, reader.tensors)
    rounded = sha256 in _ROUNDED
    specs = [
        TensorSpec(name, _shape(tensor), _dtype(tensor, rounded))
        for name, tensor in tensors.items()
    ]
    pieces = (
        piece
        for name, tensor in tensors.items()
        for piece in _dequantized(file, name, tensor, config)
    )
    write_tensors(folder / "model.safetensors", specs, pieces)


def _open(file: Path) -> gguf.GGUFReader:
    import gguf

    try:
        return gguf.GGUFReader(file)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise LiditError(
            f"{file} is truncated or no GGUF file ({error}): delete it and download it again"
        ) from error


def _named(file: Path, tensors: Iterable[gguf.ReaderTensor]) -> dict[str, gguf.ReaderTensor]:
    """Map Hugging Face names to the tensors."""
    named = {tensor.name: (_huggingface_name(tensor.name), tensor) for tensor in tensors}
    if unknown := [name for name, (ours, _) in named.items() if ours is None]:
        raise LiditError(
            f"{file} has tensors that are not supported ({', '.join(unknown[:5])}): "
            "use the model's Hugging Face folder"
        )
    return {ours: tensor for ours, tensor in named.values() if ours is not None}


def _shape(tensor: gguf.ReaderTensor) -> tuple[int, ...]:
    return tuple(int(size) for size in reversed(tensor.shape))


def _dtype(tensor: gguf.ReaderTensor, rounded: bool) -> str:
    """Return a type that holds the values exactly. Quantized ones are float16 scales times small
    integers, which need more precision than float16 and become float32."""
    import gguf

    kinds = gguf.GGMLQuantizationType
    kept = {kinds.F16: "float16", kinds.BF16: "bfloat16", kinds.F32: "float32"}
    return kept.get(tensor.tensor_type, "float16" if rounded else "float32")


def _dequantized(
    file: Path, name: str, tensor: gguf.ReaderTensor, config: dict[str, Any]
) -> Iterator[np.ndarray]:
    """Yield the values in pieces of rows, so that no embedding is held whole in float32."""
    import gguf

    heads = None
    if config["model_type"] == "llama" and (match := re.search(r"\.([qk])_proj\.", name)):
        heads = config["num_attention_heads" if match[1] == "q" else "num_key_value_heads"]
    rows, shape = tensor.data.shape[0], _shape(tensor)
    size = max(_PIECE_VALUES * shape[0] // math.prod(shape), 1) if heads is None else rows
    for start in range(0, rows, size):
        try:
            piece = gguf.quants.dequantize(tensor.data[start : start + size], tensor.tensor_type)
        except NotImplementedError as error:
            raise LiditError(
                f"{file}: {tensor.name} is of type {tensor.tensor_type.name}, which is not "
                "supported: use the model's Hugging Face folder"
            ) from error
        yield piece if heads is None else _unpermute(piece, heads)


def _unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's interleaving of the two halves of each query and key head."""
    halves = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _huggingface_name(name: str) -> str | None:
    for pattern, target in GGUF_DECODER:
        if match := pattern.fullmatch(name):
            return match.expand(target)
    return None


def _tokenizer(file: Path, fields: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
    )

    kind, split = fields["tokenizer.ggml.model"], fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or split not in _SPLITS:
        raise LiditError(
            f"{file} has a {kind!r} tokenizer cut as {split!r}: GGUF is read for gpt2 tokenizers "
            f"cut as {', '.join(_SPLITS)}, use the model's Hugging Face folder"
        )
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
    types = fields["tokenizer.ggml.token_type"]
    added = [
        AddedToken(token, normalized=False, special=kind == _CONTROL)
        for token, kind in zip(tokens, types, strict=True)
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    tokenizer.add_tokens(added)
    begins = fields.get("tokenizer.ggml.add_bos_token", split == "llama-bpe")
    config = {
        "tokenizer_class": _COMPOSED.get(split, "PreTrainedTokenizerFast"),
        "add_bos_token": bool(begins),
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        index = fields.get(f"tokenizer.ggml.{key}_token_id")
        if index is not None:
            config[f"{name}_token"] = tokens[index]
    return tokenizer, config
