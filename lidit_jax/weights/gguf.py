"""GGUF files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md) as Hugging Face folders.

A quantised file takes several seconds to read, so it is converted once and kept in the user's
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
from lidit_jax.weights.tables import GGUF_DECODER
from lidit_jax.weights.tensor_writer import TensorSpec, write_tensors

if TYPE_CHECKING:
    import gguf

SOURCE_FILE = "source.json"
"""Beside the converted files: name and sha256 of the GGUF they come from."""

_FORMAT = 3
_PIECE_VALUES = 1 << 24
"""Values that are dequantised at once: 64 MiB of float32."""
_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
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
"""How text is cut before byte-pair merging, by llama.cpp's `tokenizer.ggml.pre`."""
_COMPOSED = {"qwen2": "Qwen2Tokenizer"}
"""Those that join letters and their accents first, which the file does not say; transformers'
class of each."""


def convert(file: Path) -> Path:
    """The Hugging Face folder of a GGUF file: from the cache, or made now (fp16 weights).

    The folder is named by the file's sha256 and appears in one rename, so an interrupted or
    concurrent conversion leaves nothing half done.

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
        _write_folder(file, temporary)
        source = {"file": file.name, "sha256": sha256}
        (temporary / SOURCE_FILE).write_text(json.dumps(source))
        temporary.chmod(0o755)
        try:
            os.replace(temporary, folder)
        except OSError:
            if not (folder / SOURCE_FILE).is_file():  # else another process was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_folder(file: Path, folder: Path) -> None:
    reader = _open(file)
    fields = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    config = _config(file, fields, reader)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    tokenizer, tokenizer_config = _tokenizer(file, fields)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2))
    tensors = _named(file, reader.tensors)
    specs = [TensorSpec(name, _shape(tensor), _dtype(tensor)) for name, tensor in tensors.items()]
    pieces = (
        piece for name, tensor in tensors.items() for piece in _dequantized(name, tensor, config)
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


def _config(file: Path, fields: dict[str, Any], reader: gguf.GGUFReader) -> dict[str, Any]:
    family = fields["general.architecture"]
    if family not in _CLASSES:
        raise LiditError(
            f"{file} holds a {family!r} model: GGUF is read for {', '.join(_CLASSES)}, "
            "use the model's Hugging Face folder"
        )

    def value(name: str, default: Any = None) -> Any:
        return fields.get(f"{family}.{name}", default)

    heads = value("attention.head_count")
    return {
        "architectures": [_CLASSES[family]],
        "model_type": family,
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": value("embedding_length"),
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value("attention.head_count_kv", heads),
        "head_dim": value("attention.key_length", value("embedding_length") // heads),
        "max_position_embeddings": value("context_length"),
        "rms_norm_eps": float(np.float32(value("attention.layer_norm_rms_epsilon"))),
        "rope_theta": value("rope.freq_base", 10000.0),
        "hidden_act": "silu",
        "tie_word_embeddings": all(t.name != "output.weight" for t in reader.tensors),
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
        "dtype": "float16",
    }


def _named(file: Path, tensors: Iterable[gguf.ReaderTensor]) -> dict[str, gguf.ReaderTensor]:
    """The tensors by their Hugging Face names."""
    named = {tensor.name: (_huggingface_name(tensor.name), tensor) for tensor in tensors}
    if unknown := [name for name, (ours, _) in named.items() if ours is None]:
        raise LiditError(
            f"{file} has tensors that are not supported ({', '.join(unknown[:5])}): "
            "use the model's Hugging Face folder"
        )
    return dict(named.values())


def _shape(tensor: gguf.ReaderTensor) -> tuple[int, ...]:
    return tuple(int(size) for size in reversed(tensor.shape))


def _dtype(tensor: gguf.ReaderTensor) -> str:
    """Whatever was rounded already fits into float16."""
    import gguf

    return "float32" if tensor.tensor_type == gguf.GGMLQuantizationType.F32 else "float16"


def _dequantized(
    name: str, tensor: gguf.ReaderTensor, config: dict[str, Any]
) -> Iterator[np.ndarray]:
    """The values in pieces of rows, so that an embedding is never held whole in float32."""
    import gguf

    heads = None
    if config["model_type"] == "llama" and (match := re.search(r"\.([qk])_proj\.", name)):
        heads = config["num_attention_heads" if match[1] == "q" else "num_key_value_heads"]
    rows, shape = tensor.data.shape[0], _shape(tensor)
    size = max(_PIECE_VALUES * shape[0] // math.prod(shape), 1) if heads is None else rows
    for start in range(0, rows, size):
        piece = gguf.quants.dequantize(tensor.data[start : start + size], tensor.tensor_type)
        yield piece if heads is None else _unpermute(piece, heads)


def _unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp interleaves the two halves of each query and key head; this undoes it."""
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
    # Llama 3 takes a whole word that is in the vocabulary before it tries to merge.
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
