"""Opens a source of captioned images by its format and its path: `webdataset:gs://bucket/photos`.

A new format is one more file, with a class that follows `RecordSource`, and a line here.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import NamedTuple

from lidit_jax.data.folder_listing import is_picture, summary
from lidit_jax.data.sources.caption_listings import LISTINGS
from lidit_jax.data.sources.protocol import RecordSource
from lidit_jax.data.sources.webdataset import COMPRESSED
from lidit_jax.errors import LiditError
from lidit_jax.io.files import Files


class Format(NamedTuple):
    """A format of captioned images."""

    class_name: str
    """`MODULE:CLASS` in `lidit_jax.data.sources`, imported when it is first used; the class takes
    what stands behind the colon of a source."""
    example: str
    """A source of this format, for help and messages."""
    suffixes: tuple[str, ...] = ()
    """Ends of names by which a file is recognized, or a folder that holds such files."""


FORMATS: dict[str, Format] = {
    "folder": Format("folder:Folder", "folder:my-pictures"),
    "classes": Format("class_folders:ClassFolders", "classes:imagenet/train"),
    "webdataset": Format("webdataset:WebDataset", "webdataset:gs://bucket/photos", (".tar",)),
    "parquet": Format("parquet:Parquet", "parquet:hf://datasets/USER/NAME", (".parquet",)),
    "array_record": Format(
        "array_record:ArrayRecords", "array_record:photos", (".array_record", ".arrayrecord")
    ),
    "tfds": Format("tfds:TfdsSource", "tfds:coco_captions"),
    "emoji": Format("emoji:Emoji", "emoji:"),
}
"""Formats by the name in front of the colon of a source."""
_SHARD_NUMBER = re.compile(r"-\d+-of-\d+$")
_REMEDY = "name a source as FORMAT:PATH, such as " + ", ".join(
    known.example for known in FORMATS.values()
)


def open_records(source: str) -> RecordSource:
    """The records of a source.

    Args:
      source: `FORMAT:PATH` as in `FORMATS`, or a path whose format its files tell.

    Raises:
      LiditError: for an unknown format, or when the path holds no such source.
    """
    name, separator, path = source.partition(":")
    if not separator or path.startswith("//") or name not in FORMATS:
        name, path = guess_format(source), source
    module, _, class_name = FORMATS[name].class_name.partition(":")
    opener: Callable[[str], RecordSource] = getattr(
        importlib.import_module(f"lidit_jax.data.sources.{module}"), class_name
    )
    return opener(path)


def guess_format(path: str) -> str:
    """The format of a path without one: by its suffix, or by the files that its folder holds.

    A folder with a listing of captions is "folder", whatever else it holds. Pictures in subfolders
    alone, none of them with a text file, are "classes".

    Raises:
      LiditError: when nothing tells, or more than one thing.
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
    pictures = [name for name in names if is_picture(name)]
    if not pictures:
        left_out = f", only {summary(names)}" if names else ""
        raise LiditError(f"{path} holds no captioned images{left_out}: {_REMEDY}")
    texts = {name.lower() for name in names if name.lower().endswith(".txt")}
    beside = any(f"{PurePosixPath(name).with_suffix('.txt')}".lower() in texts for name in pictures)
    return "classes" if all("/" in name for name in pictures) and not beside else "folder"


def _format_of(name: str) -> str | None:
    """By the end of a file's name, without the number of a shard."""
    name = _SHARD_NUMBER.sub("", name.rstrip("/").lower())
    return next((kind for kind, known in FORMATS.items() if name.endswith(known.suffixes)), None)
