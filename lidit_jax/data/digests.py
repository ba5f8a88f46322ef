"""Short digests that tell records apart: eight bytes each, the same on every machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

_END = 2**14


def short_digest(*parts: bytes) -> bytes:
    """Eight bytes for some texts in their order; where one ends and the next begins counts too."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def file_digest(file: Path) -> bytes:
    """Eight bytes for a file's content; times and names do not count.

    Of a large file only its size, its first and its last 16 KiB are read: it is asked of every
    picture at every start.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        beginning = stream.read(_END)
        stream.seek(max(size - _END, _END))
        return short_digest(str(size).encode(), beginning, stream.read(_END))
