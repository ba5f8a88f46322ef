"""Memory-mapped safetensors files, whose tensors are views without copies.

The library's own reader copies every tensor before a slice of it can be transposed; a view costs
nothing, and the pages that no device needs are never read.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors

from lidit_jax.errors import LiditError

_FLOATS = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


@dataclass(frozen=True)
class MappedTensor:
    """Location of one tensor in a file, not yet read."""

    file: Path
    name: str
    kind: str
    """Type as named in the file, such as "BF16"."""
    shape: tuple[int, ...]
    offset: int
    """Offset of its first byte in the file."""
    nbytes: int

    @property
    def is_float(self) -> bool:
        """Whether its type is supported: integers and 8-bit floats mean a quantized checkpoint."""
        return self.kind in _FLOATS

    def view(self, mapped: mmap.mmap) -> np.ndarray:
        """Return its values as a read-only view, which keeps the mapped file open."""
        dtype = _FLOATS[self.kind]
        flat = np.frombuffer(mapped, dtype, self.nbytes // dtype.itemsize, self.offset)
        return flat.reshape(self.shape)


def list_tensors(files: Iterable[Path]) -> list[MappedTensor]:
    """List the tensors of all files, in file order.

    Raises:
      LiditError: when a file is truncated or damaged, or when two files hold the same tensor.
    """
    found: dict[str, MappedTensor] = {}
    for file in files:
        for tensor in sorted(_read_header(file), key=lambda tensor: tensor.offset):
            if tensor.name in found:
                first = found[tensor.name].file
                raise LiditError(
                    f"{tensor.name} is in {first} and in {file.name}: remove the file that does "
                    "not belong to the model"
                )
            found[tensor.name] = tensor
    return list(found.values())


def map_file(file: Path) -> mmap.mmap:
    """Map a whole file into read-only memory, with the advice of sequential access."""
    with file.open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_SEQUENTIAL"):
        mapped.madvise(mmap.MADV_SEQUENTIAL)
    return mapped


def _read_header(file: Path) -> list[MappedTensor]:
    try:
        # The library checks that the header is valid and its offsets cover exactly the file.
        with safetensors.safe_open(file, framework="numpy"):
            pass
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
    except (safetensors.SafetensorError, OSError) as error:
        raise LiditError(
            f"{file} is truncated or damaged ({error}): delete it and download it again"
        ) from error
    header.pop("__metadata__", None)
    tensors = []
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        place = 8 + length + first
        tensors.append(
            MappedTensor(file, name, entry["dtype"], tuple(entry["shape"]), place, last - first)
        )
    return tensors
