"""Locating a checkpoint's encoders that have moved since training.

A checkpoint stores the name or path of each encoder as given in training, and the sha256 of its
content. If the path differs on this machine, the user gives the new one, or the encoder is found by
its content.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lidit_jax.encoders.locations import (
    PACKAGED_ENCODERS,
    content_digests,
    hub_parts,
    model_folder,
    tokenizer_digest,
)
from lidit_jax.errors import LiditError
from lidit_jax.weights import gguf

SEARCH_PATH_VARIABLE = "LIDIT_ENCODERS"
"""Environment variable: folders to search, separated as in PATH."""


def resolve_sources(
    sources: Sequence[str],
    trained_with: Sequence[Mapping[str, Any]],
    given: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Return the locations of a checkpoint's encoders on this machine.

    Args:
      sources: `encoders.sources` of the checkpoint's configuration.
      trained_with: the checkpoint's description of each encoder.
      given: new locations of moved encoders, by source or by the last part of its path.

    Returns:
      One source per stream: the given one, else the configured one if it exists, else the one
        found by content in the folders of `LIDIT_ENCODERS`.

    Raises:
      LiditError: when a given name is not in the checkpoint, or an encoder is not found.
    """
    given = given or {}
    for name in given:
        if not any(name in (source, Path(source).name) for source in sources):
            raise LiditError(
                f"encoder {name!r} is none of this checkpoint's, which are {', '.join(sources)}"
            )
    return tuple(
        given.get(source)
        or given.get(Path(source).name)
        or _where_it_is(source, stream["fingerprint"])
        for source, stream in zip(sources, trained_with, strict=True)
    )


def _where_it_is(source: str, fingerprint: Mapping[str, str]) -> str:
    if source in PACKAGED_ENCODERS or Path(source).expanduser().exists():
        return source
    # Candidates of the same name first, because hashing large weights is slow.
    name = Path(source).name
    for place in sorted(_candidates(), key=lambda path: name not in (path.name, path.parent.name)):
        if _holds(place, fingerprint):
            return str(place)
    if hub_parts(source) is not None:
        return source
    raise LiditError(
        f"no encoder {source!r} here: give its new path with --encoder {source}=PATH "
        f"(in Python encoders={{{source!r}: PATH}}), or name a folder that holds it in "
        f"{SEARCH_PATH_VARIABLE}"
    )


def _holds(place: Path, fingerprint: Mapping[str, str]) -> bool:
    """Return whether an encoder's content matches the checkpoint's fingerprint."""
    try:
        # The tokenizer first, because hashing large weights is slow.
        if place.is_dir() and tokenizer_digest(place) != fingerprint["tokenizer"]:
            return False
        digests = content_digests(place)
    except LiditError:  # an incomplete model
        return False
    return all(fingerprint[name] == digest for name, digest in digests.items())


def _candidates() -> Iterator[Path]:
    """Yield model folders and GGUF files in `LIDIT_ENCODERS` and directly inside its folders.

    Of a diffusion pipeline these are its text encoders, of a split GGUF file its first part.
    """
    for text in filter(None, os.environ.get(SEARCH_PATH_VARIABLE, "").split(os.pathsep)):
        folder = Path(text).expanduser()
        if not folder.exists():
            raise LiditError(
                f"{SEARCH_PATH_VARIABLE} names {folder}, which does not exist: correct it"
            )
        inside = sorted(folder.iterdir()) if folder.is_dir() else []
        for path in (folder, *inside):
            if path.suffix == ".gguf" and gguf.is_first_part(path):
                yield path
            for part in (model_folder(path), *sorted(path.glob("text_encoder_*"))):
                if any(part.glob("*.safetensors")):
                    yield part
