"""Cached index of the images in a folder, so that later starts need not open them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lidit_jax.data.cache import content_key
from lidit_jax.data.digests import stream_digest
from lidit_jax.errors import LiditError
from lidit_jax.io.image_files import Header, read_header
from lidit_jax.io.output import atomic_file, writable_folder

_FORMAT = 2


class PictureFacts(NamedTuple):
    """Facts of an image file, valid while its size and modification time are the same."""

    size: int
    """File size in bytes."""
    time: int
    """Modification time in nanoseconds."""
    digest: bytes
    """Digest of its content."""
    header: Header


class PictureIndex:
    """Index of image files, each of which is opened once: `index.facts(file)`.

    With a folder of cached data the facts are stored there, and an image is opened again only when
    its size or modification time has changed.
    """

    def __init__(self, pictures: Path, prepared: Path | None = None):
        """Read the stored facts.

        Args:
          pictures: the folder with the images.
          prepared: folder of cached data, which may be in a bucket. None stores nothing.
        """
        key = content_key("pictures", {"folder": str(pictures.resolve()), "format": _FORMAT})
        self._pictures = pictures
        self._file = prepared / f"{key}.json" if prepared else None
        self._kept = _read(self._file) if self._file else {}
        self._facts: dict[str, PictureFacts] = {}

    def facts(self, file: Path) -> PictureFacts:
        """Return the facts of an image. Raises `LiditError` when it is not one or not readable."""
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
                    f"{file} is not a readable image: replace or remove it ({error.strerror})"
                ) from error
        return self._facts[key]

    def keep(self, files: Iterable[Path]) -> None:
        """Store the facts of these images, if any are new.

        If the folder is not writable, the only cost is the time to open the images again.
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
    except (OSError, ValueError, TypeError, AttributeError):  # missing or damaged: rebuilt
        return {}
