"""Captions of a folder of images: a text file beside each, or one listing of all."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lidit_jax.config.prompt_text import prompt_text
from lidit_jax.config.text import split_lines
from lidit_jax.data.file_errors import FileErrors
from lidit_jax.data.sources.columns import CAPTION_KEYS, json_object
from lidit_jax.errors import LiditError

LISTINGS = ("captions.jsonl", "metadata.jsonl")
"""Names of a listing; the first one in a folder is used."""
FILE_KEYS = ("file", "file_name")
"""Fields of a listing with the image's name."""
EXAMPLE = '{"file": "NAME.png", "caption": "TEXT"}'
"""Example line of a listing, for messages."""


def find_listing(folder: Path) -> Path | None:
    """Return the listing of a folder; None if each image has a text file."""
    return next((folder / name for name in LISTINGS if (folder / name).is_file()), None)


def read_caption(file: Path, picture: str) -> str:
    """Read the caption in a text file.

    Args:
      file: the text file.
      picture: name of its image, for messages.

    Raises:
      LiditError: when it is empty, or not UTF-8.
    """
    caption = prompt_text(str(file), "\n".join(_lines(file)))
    if not caption:
        raise LiditError(f"{file} is empty: write the caption of {picture} into it")
    return caption


def read_listing(listing: Path, errors: FileErrors) -> list[tuple[Path, str]]:
    """Read the image and the caption of each JSON line.

    Args:
      listing: the file.
      errors: receives messages about invalid lines, damaged captions, and images that do not
        exist or are outside the folder; each states the file and the line.
    """
    records = []
    with errors.collect():
        for number, line in enumerate(_lines(listing), start=1):
            if line.strip():
                with errors.collect():
                    records.append(_record(line, listing.parent, f"{listing}, line {number}"))
    return records


def picture_name(record: Mapping[str, Any], folder: str, where: str) -> str:
    """Return the image name in a record of a listing, relative to its folder.

    Args:
      record: one line of the listing.
      folder: name of the folder in messages.
      where: name of the line in messages.

    Raises:
      LiditError: when it has none, or names one outside of the folder.
    """
    name = _text(record, FILE_KEYS)
    if not name:
        raise LiditError(f"{where}: write {EXAMPLE}")
    if name.startswith("/") or ".." in name.split("/"):
        raise LiditError(
            f"{where}: {name!r} is not inside of {folder}: put the picture, or a link to it, there"
        )
    return posixpath.normpath(name)


def _record(line: str, folder: Path, where: str) -> tuple[Path, str]:
    record = json_object(line.encode(), where, EXAMPLE)
    caption = prompt_text(where, _text(record, CAPTION_KEYS) or "")
    if not caption:
        raise LiditError(f"{where}: write {EXAMPLE}")
    picture = folder / picture_name(record, str(folder), where)
    try:
        exists = picture.is_file()
    except OSError:  # a name too long for the file system
        exists = False
    if not exists:
        raise LiditError(f"{where}: {picture} does not exist")
    return picture, caption


def _lines(file: Path) -> list[str]:
    try:
        return split_lines(file.read_bytes())
    except UnicodeDecodeError as error:
        raise LiditError(f"{file} is not UTF-8 text: save it as UTF-8") from error
    except OSError as error:
        raise LiditError(f"{file} cannot be read ({error.strerror}): replace it") from error


def _text(record: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    """Return the text of the first of the keys that a record has."""
    found = [record[key] for key in keys if key in record]
    return found[0] if found and isinstance(found[0], str) else None
