"""Short digests that tell records apart: eight bytes each, the same on every machine."""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

_END = 2**14


def short_digest(*parts: bytes) -> bytes:
    """Eight bytes for some texts in their order; where one ends and the next begins counts too."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def stream_digest(stream: BinaryIO) -> bytes:
    """Eight bytes for a file's content; names and times do not count.

    Of a large file only its size, its first and its last 16 KiB are read: it is asked of every
    picture.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    beginning = stream.read(_END)
    stream.seek(max(size - _END, _END))
    return short_digest(str(size).encode(), beginning, stream.read(_END))
