"""Opens a source of captioned images by its format and its path: `webdataset:gs://bucket/photos`.

A new format is one more file, with a class that follows `RecordSource`, and a line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

from lidit_jax.data.sources.protocol import RecordSource
from lidit_jax.errors import LiditError


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

    Raises:
      LiditError: when nothing tells.
    """
    raise LiditError(f"{path}: name its format, one of {', '.join(FORMATS)}: folder:{path}")
