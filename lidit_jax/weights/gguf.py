"""Conversion of GGUF files to Hugging Face folders, cached on disk.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

A quantized file takes several seconds to read, so it is converted once and kept in the user's
cache; from then on it is a Hugging Face folder like any other.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lidit_jax.errors import LiditError
from lidit_jax.io.kept_folders import made_once
from lidit_jax.io.paths import cache_dir
from lidit_jax.weights.gguf_metadata import ROPE_TENSORS, model_config, tensor_names
from lidit_jax.weights.gguf_tokenizer import build_tokenizer
from lidit_jax.weights.placement import first_names
from lidit_jax.weights.tables import GgufTable
from lidit_jax.weights.tensor_writer import TensorSpec, write_tensors

if TYPE_CHECKING:
    import gguf

SOURCE_FILE = "source.json"
"""File beside the converted ones with name and sha256 of the GGUF file, or of its first part and
all its parts."""

_FORMAT = 3
_PIECE_VALUES = 1 << 24
"""Number of values that are dequantized at once: 64 MiB of float32."""
_ROUNDED = {"b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}
"""The sha256 of files whose quantized weights are rounded to float16, as version 0.1 rounded all.

This one is the packaged SmolLM2. The demo was trained on its features, and a checkpoint identifies
an encoder by the sha256 of its file, so the same file must give the same features. Exact weights
would change them by 2e-4 of their size.
"""
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})")


def convert(file: Path) -> Path:
    """Convert a GGUF file to a Hugging Face folder, or return the cached one.

    Any part of a split file stands for all of them. Weights keep their values: F16 and BF16 stay as
    they are, quantized ones become float32. The folder is named by the file's sha256 and appears in
    one rename, so an interrupted or concurrent conversion leaves nothing incomplete.

    Raises:
      LiditError: when the file is damaged or a part is missing, or when it is of a family or
        tokenizer that is not supported.
    """
    sha256, first = content_sha256(file), parts(file)[0]
    folder = cache_dir() / "encoders" / f"{first.stem}-{sha256[:16]}-v{_FORMAT}"

    def is_whole(place: Path) -> bool:
        source = place / SOURCE_FILE
        return source.is_file() and json.loads(source.read_text())["sha256"] == sha256

    def make(place: Path) -> None:
        _write_folder(file, sha256, place)
        source = {"file": first.name, "sha256": sha256}
        (place / SOURCE_FILE).write_text(json.dumps(source))

    return made_once(folder, is_whole, make)


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_sha256(file: Path) -> str:
    """Return the hex sha256 of a GGUF file, of a split one those of all parts, joined by "+".

    Raises:
      LiditError: when a part is missing.
    """
    return "+".join(file_sha256(part) for part in parts(file))


def parts(file: Path) -> list[Path]:
    """Return the parts of a split GGUF file, any of which is given; the file itself if not split.

    Raises:
      LiditError: when parts are missing; names them.
    """
    if (match := _PART.fullmatch(file.stem)) is None:
        return [file]
    names = [f"{match[1]}-{i:05d}-of-{match[3]}.gguf" for i in range(1, int(match[3]) + 1)]
    if missing := [name for name in names if not (file.parent / name).is_file()]:
        raise LiditError(f"{file.parent} lacks {first_names(missing)}: download all parts into it")
    return [file.parent / name for name in names]


def is_first_part(file: Path) -> bool:
    """Return whether a GGUF file is the first part of a split one, or not split."""
    match = _PART.fullmatch(file.stem)
    return match is None or int(match[2]) == 1


def _write_folder(file: Path, sha256: str, folder: Path) -> None:
    fields, stored = _read(parts(file))
    names = [tensor.name for tensor in stored]
    factors = {
        tensor.name: [float(factor) for factor in _values(file, tensor).ravel()]
        for tensor in stored
        if tensor.name in ROPE_TENSORS
    }
    config = model_config(file, fields, names, factors)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    tokenizer, tokenizer_config = build_tokenizer(file, fields)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2))
    tensors = _named(file, stored, tensor_names(config))
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


def _read(files: list[Path]) -> tuple[dict[str, Any], list[gguf.ReaderTensor]]:
    """Return the metadata and the tensors of all parts, after checking that they fit together."""
    readers = [_open(file) for file in files]
    metadata = [
        {
            name: field.contents()
            for name, field in reader.fields.items()
            if not name.startswith("GGUF.")
        }
        for reader in readers
    ]
    tensors = [tensor for reader in readers for tensor in reader.tensors]
    fields = metadata[0]
    for i, (file, own) in enumerate(zip(files, metadata, strict=True)):
        expected = {
            "split.no": i,
            "split.count": len(files),
            "split.tensors.count": len(tensors),
        }
        for key, value in own.items():
            wanted = expected.get(key, fields.get(key))
            # A file that is not split may count 0 parts.
            if value != wanted and not (len(files) == 1 and key in expected and value == 0):
                raise LiditError(
                    f"{file}: {key} is {value!r}, not {wanted!r}: download all parts of the model "
                    "again and keep their names"
                )
        if len(files) > 1 and "split.count" not in own:
            raise LiditError(f"{file} is named as a part but is none: give it another name")
    return fields, tensors


def _open(file: Path) -> gguf.GGUFReader:
    import gguf

    try:
        return gguf.GGUFReader(file)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise LiditError(
            f"{file} is truncated or no GGUF file ({error}): delete it and download it again"
        ) from error


def _named(
    file: Path, tensors: Iterable[gguf.ReaderTensor], table: GgufTable
) -> dict[str, gguf.ReaderTensor]:
    """Map Hugging Face names to the tensors that are needed."""
    named: dict[str, gguf.ReaderTensor] = {}
    unknown = []
    for tensor in tensors:
        if tensor.name in ROPE_TENSORS:
            continue
        for pattern, target in table:
            if match := pattern.fullmatch(tensor.name):
                if target is not None:
                    named[match.expand(target)] = tensor
                break
        else:
            unknown.append(tensor.name)
    if unknown:
        raise LiditError(
            f"{file} has tensors that are not supported ({', '.join(unknown[:5])}): "
            "use the model's Hugging Face folder"
        )
    return named


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
    arrange = None
    if config["model_type"] == "llama" and (match := re.search(r"\.([qk])_proj\.", name)):
        heads = config["num_attention_heads" if match[1] == "q" else "num_key_value_heads"]
        arrange = functools.partial(_unpermute, heads=heads)
    elif config["model_type"] == "gemma3_text" and name.endswith("norm.weight"):
        arrange = _less_one
    rows, shape = tensor.data.shape[0], _shape(tensor)
    size = max(_PIECE_VALUES * shape[0] // math.prod(shape), 1) if arrange is None else rows
    for start in range(0, rows, size):
        piece = _values(file, tensor, slice(start, start + size))
        yield piece if arrange is None else arrange(piece)


def _values(file: Path, tensor: gguf.ReaderTensor, rows: slice = slice(None)) -> np.ndarray:
    """Return some rows of a tensor in float32."""
    import gguf

    try:
        return gguf.quants.dequantize(tensor.data[rows], tensor.tensor_type)
    except NotImplementedError as error:
        raise LiditError(
            f"{file}: {tensor.name} is of type {tensor.tensor_type.name}, which is not "
            "supported: use the model's Hugging Face folder"
        ) from error


def _less_one(scale: np.ndarray) -> np.ndarray:
    """Return the scale of a norm as Gemma's folders store it; GGUF files store 1 + weight."""
    return scale - 1


def _unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undo llama.cpp's interleaving of the two halves of each query and key head."""
    halves = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)
