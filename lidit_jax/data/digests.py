"""Eight-byte digests of records, the same on every machine."""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

_END = 2**14


def short_digest(*parts: bytes) -> bytes:
    """Return an eight-byte digest of a sequence of byte strings, including their boundaries."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def stream_digest(stream: BinaryIO) -> bytes:
    """Return an eight-byte digest of a file's content, independent of its name and time.

    For speed only the size and the first and last 16 KiB of a large file are used.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    beginning = stream.read(_END)
    stream.seek(max(size - _END, _END))
    return short_digest(str(size).encode(), beginning, stream.read(_END))
