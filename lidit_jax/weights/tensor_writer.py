"""Streaming writer of safetensors files, which never holds a whole model.

The format (https://huggingface.co/docs/safetensors) has all names, types and offsets before the
data, so a file can be written in one pass as soon as the shapes are known.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file

SHARD_BYTES = 5 * 10**9
"""Most bytes of tensors per file, as on the Hugging Face hub."""

DTYPES = {
    "float32": ("F32", np.dtype(np.float32)),
    "float16": ("F16", np.dtype(np.float16)),
    "bfloat16": ("BF16", np.dtype(ml_dtypes.bfloat16)),
}
"""Supported types: safetensors' name and NumPy's of each."""


class TensorSpec(NamedTuple):
    """Name, shape and type of a tensor to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * DTYPES[self.dtype][1].itemsize


def shards(specs: Sequence[TensorSpec], limit: int) -> list[list[TensorSpec]]:
    """Group tensors, in order, into files of at most `limit` bytes (or one larger tensor)."""
    files: list[list[TensorSpec]] = [[]]
    size = 0
    for spec in specs:
        if files[-1] and size + spec.nbytes > limit:
            files.append([])
            size = 0
        files[-1].append(spec)
        size += spec.nbytes
    return files


def shard_names(count: int) -> list[str]:
    """Return Hugging Face's names of `count` files, such as "model-00001-of-00002.safetensors"."""
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]


def write_tensors(
    file: Path, specs: Sequence[TensorSpec], pieces: Iterator[np.ndarray]
) -> tuple[dict[str, str], str]:
    """Write one file, holding one piece at a time; it appears once it is complete.

    Args:
      file: to write.
      specs: its tensors, in order.
      pieces: the values, in order; a tensor may come in several pieces along its first axis.

    Returns:
      The sha256 of every tensor's bytes, and that of the file.

    Raises:
      LiditError: when a value is not finite.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for spec in specs:
        end = start + spec.nbytes
        place = {"dtype": DTYPES[spec.dtype][0], "shape": spec.shape, "data_offsets": [start, end]}
        header[spec.name], start = place, end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    hashes, whole = {}, hashlib.sha256()
    with atomic_file(file) as stream:

        def put(data: Any) -> None:
            stream.write(data)
            whole.update(data)

        put(struct.pack("<Q", len(text)) + text)
        for spec in specs:
            digest, written = hashlib.sha256(), 0
            while written < spec.nbytes:
                data = _checked(spec, next(pieces)).reshape(-1).view(np.uint8).data
                digest.update(data)
                put(data)
                written += len(data)
            hashes[spec.name] = digest.hexdigest()
    return hashes, whole.hexdigest()


def digest_of(array: np.ndarray) -> str:
    """Return the sha256 of an array's bytes, as `write_tensors` does."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return hashlib.sha256(flat.view(np.uint8).data).hexdigest()


def _checked(spec: TensorSpec, piece: np.ndarray) -> np.ndarray:
    """Convert a piece to the file's type, contiguous, and check that it is finite."""
    with np.errstate(over="ignore"):  # reported below, by name
        array = np.ascontiguousarray(piece, DTYPES[spec.dtype][1])
    if not np.isfinite(array).all():
        raise LiditError(
            f"{spec.name} has values that are not finite in {spec.dtype}: the weights are damaged, "
            "or too large for this type"
        )
    return array
