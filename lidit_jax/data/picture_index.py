"""What is known of the pictures of a folder, kept so that later starts need not open them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lidit_jax.data.cache import content_key
from lidit_jax.data.digests import stream_digest
from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file, writable_folder
from lidit_jax.io.pictures import Header, read_header

_FORMAT = 2


class PictureFacts(NamedTuple):
    """A picture as it was when it was opened; it counts while size and time are the same."""

    size: int
    """In bytes."""
    time: int
    """Of the last change, in nanoseconds."""
    digest: bytes
    """Of its content."""
    header: Header


class PictureIndex:
    """Facts of pictures, each of which is opened once: `index.facts(file)`.

    Where a folder of prepared data is given they are kept there, and a picture is opened again only
    when its size or its time has changed.
    """

    def __init__(self, pictures: Path, prepared: Path | None = None):
        """Reads what is kept.

        Args:
          pictures: the folder with the pictures.
          prepared: where prepared data is kept; it may lie in a bucket. None keeps nothing.
        """
        key = content_key("pictures", {"folder": str(pictures.resolve()), "format": _FORMAT})
        self._pictures = pictures
        self._file = prepared / f"{key}.json" if prepared else None
        self._kept = _read(self._file) if self._file else {}
        self._facts: dict[str, PictureFacts] = {}

    def facts(self, file: Path) -> PictureFacts:
        """Of one picture. Raises `LiditError` when it is none, or cannot be read."""
        key = self._key(file)
        if key not in self._facts:
            kept = self._kept.get(key)
            try:
                state = file.stat()
                if kept is None or kept[:2] != (state.st_size, state.st_mtime_ns):
                    kept = _open(file)
                self._facts[key] = kept
            except OSError as error:
                raise LiditError(
                    f"{file} is not a readable picture: replace or remove it ({error.strerror})"
                ) from error
        return self._facts[key]

    def keep(self, files: Iterable[Path]) -> None:
        """Writes the facts of these pictures, if any are new.

        A folder that cannot be written costs the next start time and nothing else; what must be
        written there says so.
        """
        facts = {self._key(file): self.facts(file) for file in files}
        if self._file is None or facts == self._kept:
            return
        rows = {key: [*fact[:2], fact.digest.hex(), *fact.header] for key, fact in facts.items()}
        try:
            with (
                writable_folder(self._file.parent, "config.data.cache_dir"),
                atomic_file(self._file) as stream,
            ):
                stream.write(json.dumps(rows).encode())
        except (LiditError, OSError):
            return

    def _key(self, file: Path) -> str:
        return os.path.relpath(file, self._pictures)


def _open(file: Path) -> PictureFacts:
    with file.open("rb") as stream:
        state = os.fstat(stream.fileno())
        header = read_header(stream, file)
        return PictureFacts(state.st_size, state.st_mtime_ns, stream_digest(stream), header)


def _read(file: Path) -> dict[str, PictureFacts]:
    try:
        rows = json.loads(file.read_bytes())
        return {
            key: PictureFacts(size, time, bytes.fromhex(digest), Header(*header))
            for key, (size, time, digest, *header) in rows.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):  # absent, or damaged: made anew
        return {}
