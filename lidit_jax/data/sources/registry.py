"""Registry of formats: opens `FORMAT:PATH`, such as `webdataset:gs://bucket/photos`.

A new format needs a module with a class that implements `RecordSource`, and a line here.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import NamedTuple

from lidit_jax.data.folder_listing import is_image, summary
from lidit_jax.data.sources.caption_listings import LISTINGS
from lidit_jax.data.sources.protocol import RecordSource
from lidit_jax.data.sources.webdataset import COMPRESSED
from lidit_jax.errors import LiditError
from lidit_jax.io.files import Files


class Format(NamedTuple):
    """Format of captioned images."""

    class_name: str
    """`MODULE:CLASS` in `lidit_jax.data.sources`, imported on first use; the argument of the class
    is the text after a source's colon."""
    example: str
    """Example of a source in this format, for help and messages."""
    suffixes: tuple[str, ...] = ()
    """File name endings by which a file, or a folder of such files, is recognized."""


FORMATS: dict[str, Format] = {
    "folder": Format("folder:Folder", "folder:my-images"),
    "classes": Format("class_folders:ClassFolders", "classes:imagenet/train"),
    "webdataset": Format("webdataset:WebDataset", "webdataset:gs://bucket/photos", (".tar",)),
    "parquet": Format("parquet:Parquet", "parquet:hf://datasets/USER/NAME", (".parquet",)),
    "array_record": Format(
        "array_record:ArrayRecords", "array_record:photos", (".array_record", ".arrayrecord")
    ),
    "tfds": Format("tfds:TfdsSource", "tfds:coco_captions"),
    "emoji": Format("emoji:Emoji", "emoji:"),
}
"""Formats by the name before a source's colon."""
_SPECIAL = re.compile(r"[*?\[{]")
_SHARD_NUMBER = re.compile(r"-\d+-of-\d+$")
_REMEDY = "name a source as FORMAT:PATH, such as " + ", ".join(
    known.example for known in FORMATS.values()
)


def open_records(source: str) -> RecordSource:
    """Open a source.

    Args:
      source: `FORMAT:PATH` as in `FORMATS`, or a path whose format is guessed from its files.

    Raises:
      LiditError: for an unknown format, or when the path holds no such source.
    """
    name, separator, path = source.partition(":")
    if not separator or path.startswith("//") or name not in FORMATS:
        name, path = guess_format(source), source
    place, *split = path.split("@") if name == "tfds" else [path]
    path = "@".join([_absolute(place), *split])
    module, _, class_name = FORMATS[name].class_name.partition(":")
    opener: Callable[[str], RecordSource] = getattr(
        importlib.import_module(f"lidit_jax.data.sources.{module}"), class_name
    )
    return opener(path)


def guess_format(path: str) -> str:
    """Guess the format of a path by its suffix, or by the files in its folder.

    A folder with a listing of captions is "folder", whatever else it holds. Images only in
    subfolders, without text files, are "classes".

    Raises:
      LiditError: when no format matches, or more than one.
    """
    if path.startswith("hf://"):
        return "parquet"
    if found := _format_of(path):
        return found
    if COMPRESSED.search(path):
        return "webdataset"
    if "://" not in path and not os.path.exists(path):
        raise LiditError(f"{path} does not exist: {_REMEDY}")
    names = list(Files(path).listing().files)
    if not set(LISTINGS).isdisjoint(names):
        return "folder"
    formats = sorted({found for name in names if (found := _format_of(name))})
    if not formats and any(COMPRESSED.search(name) for name in names):
        formats = ["webdataset"]
    if len(formats) > 1:
        raise LiditError(f"{path} holds {' and '.join(formats)}: name one, {formats[0]}:{path}")
    if formats:
        return formats[0]
    images = [name for name in names if is_image(name)]
    if not images:
        left_out = f", only {summary(names)}" if names else ""
        raise LiditError(f"{path} holds no captioned images{left_out}: {_REMEDY}")
    texts = {name.lower() for name in names if name.lower().endswith(".txt")}
    beside = any(f"{PurePosixPath(name).with_suffix('.txt')}".lower() in texts for name in images)
    return "classes" if all("/" in name for name in images) and not beside else "folder"


def _absolute(path: str) -> str:
    """Return an existing path of this machine, or a pattern in one, as an absolute path.

    Indexes store it, and are then opened from any folder. Other paths, such as URLs, are unchanged.
    """
    # The folder of a pattern, such as photos/{000..123}.tar.
    place = path if os.path.exists(path) else os.path.dirname(_SPECIAL.split(path)[0])
    exists = os.path.exists(place) or (place == "" and _SPECIAL.search(path))
    return os.path.abspath(path) if exists and path and "://" not in path else path


def _format_of(name: str) -> str | None:
    """Return the format of a file by the end of its name, without the number of a shard."""
    name = _SHARD_NUMBER.sub("", name.rstrip("/").lower())
    return next((kind for kind, known in FORMATS.items() if name.endswith(known.suffixes)), None)
