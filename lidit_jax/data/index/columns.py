"""Columns of an index: names, types, files, and the rows of one shard."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float64, UInt8, UInt32

from lidit_jax.data.caption_flags import CaptionFlag
from lidit_jax.errors import LiditError

FORMAT = 1
"""Version of index and parts; increased when a column is added or its meaning changes."""

COLUMNS = {
    "offset": "<i8",
    "length": "<i8",
    "width": "<u4",
    "height": "<u4",
    "problem": "|u1",
    "content": "<u8",
    "name": "<u8",
    "key_end": "<i8",
}
"""Columns of one number per record, and their types on every machine. `key_end` is the end of a
record's key in the bytes of all keys."""
NEAR = "near"
"""Column of perceptual hashes, if requested."""
TABLES = {"caption_chars": "<u4", "caption_flags": "|u1", "numbers": "<f8"}
"""Columns whose number depends on the source: the rows of a table, with separate names."""
MISSING = {"caption_chars": 0, "caption_flags": int(CaptionFlag.EMPTY), "numbers": np.nan}
"""Values in the tables for a record without a caption or number of that name."""


class Problem(IntEnum):
    """Reason why a record cannot be used."""

    NONE = 0
    RECORD = 1
    """Invalid record, such as an image without a caption."""
    IMAGE = 2
    """Image that cannot be opened, is of an unknown format, or is too large."""
    PIXELS = 3
    """Image that can be opened but not decoded; detected only with perceptual hashes."""
    CAPTION = 4
    """Caption with lone surrogates."""


@dataclass(frozen=True)
class Part:
    """Records of one shard."""

    columns: dict[str, np.ndarray]
    """Columns `COLUMNS` and `NEAR`, each of n numbers."""
    caption_names: list[str]
    caption_chars: UInt32[np.ndarray, "captions n"]
    caption_flags: UInt8[np.ndarray, "captions n"]
    number_names: list[str]
    numbers: Float64[np.ndarray, "scores n"]
    keys: UInt8[np.ndarray, " bytes"]
    """All keys, concatenated, in UTF-8."""
    problems: list[list[Any]] = field(default_factory=list)
    """Record, counted from the shard's first, and message; in order."""

    def __len__(self) -> int:
        return len(self.columns["offset"])

    def save(self, file: BinaryIO) -> None:
        """Write the part to a file."""
        about = {
            "captions": self.caption_names,
            "numbers": self.number_names,
            "problems": self.problems,
        }
        arrays: dict[str, Any] = {
            "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
            "keys": self.keys,
            **{name: getattr(self, name) for name in TABLES},
            **self.columns,
        }
        np.savez(file, **arrays)

    @classmethod
    def load(cls, file: Any) -> Part:
        """Read the result of `save`, from a path of this machine or an open file.

        Raises:
          LiditError: when it is damaged.
        """
        try:
            with np.load(file) as arrays:
                about = json.loads(arrays["about"].tobytes())
                tables = {"about", "keys", *TABLES}
                return cls(
                    {name: arrays[name] for name in arrays.files if name not in tables},
                    about["captions"],
                    arrays["caption_chars"],
                    arrays["caption_flags"],
                    about["numbers"],
                    arrays["numbers"],
                    arrays["keys"],
                    about["problems"],
                )
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise LiditError(
                f"{file} is damaged ({error}): delete it and start again, its shard alone is "
                "scanned anew"
            ) from error


def encode_key(key: str) -> bytes:
    """Encode a key as UTF-8, also a file name that is not valid text."""
    return key.encode("utf-8", "surrogatepass")


def decode_key(content: bytes) -> str:
    """Return the argument of `encode_key`."""
    return content.decode("utf-8", "surrogatepass")
