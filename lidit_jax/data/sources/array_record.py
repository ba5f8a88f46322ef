"""ArrayRecord files of `tf.train.Example`: those of `lidit data convert`, and others."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lidit_jax.config.text import broken_characters
from lidit_jax.data.folder_listing import summary
from lidit_jax.data.sources.columns import Columns, columns
from lidit_jax.data.sources.examples import IMAGE, KEY, parse_example, write_example
from lidit_jax.data.sources.protocol import Place, Record, ScannedRecord, Shard
from lidit_jax.data.sources.record_files import RecordFiles, write_record_file
from lidit_jax.data.sources.shard_names import NamedFiles
from lidit_jax.errors import LiditError

SUFFIXES = (".array_record", ".arrayrecord")
IMAGES = (IMAGE, "image/encoded")
"""Features with the encoded file of an image; the first one present is used."""


class ArrayRecords:
    """Records of ArrayRecord files; each file is a shard.

    A record is a serialized `tf.train.Example`. Its feature `image` or `image/encoded` is the
    encoded file of the image, features of bytes are captions (with several values they are called
    `name_0`, `name_1`, …), those of one number are numbers, and `__key__` is its name.
    """

    def __init__(self, path: str):
        """Set the path; no file is read yet.

        Args:
          path: a file, a folder, or a pattern such as `photos/train*.array_record*`, of this
            machine or of a bucket. From s3:// each file is copied into the user's cache.

        Raises:
          LiditError: when `array_record` is not installed, or the path can be none.
        """
        self._path = path
        self._named = NamedFiles(path, *SUFFIXES)
        self._records = RecordFiles(self._named.files)

    def __reduce__(self) -> tuple[type[ArrayRecords], tuple[str]]:
        return ArrayRecords, (self._path,)

    def __repr__(self) -> str:
        return f"array_record:{self._path}"

    def shards(self) -> Sequence[Shard]:
        """Return one shard per file. Raises `LiditError` when there is none."""
        return [Shard(name, version) for name, version in self._named.find().items()]

    def scan(self, shard: Shard) -> Iterator[ScannedRecord]:
        """Yield the records of a file, in order."""
        for number, content in enumerate(self._records.scan(shard.name)):
            where = self._where(shard.name, number)
            found = decoded(parse_example(content, where), where)
            yield scanned(found, f"{shard.name}/{number}", number)

    def read(self, place: Place) -> Record:
        """Read one record. Raises `LiditError` when it is no longer there or cannot be used."""
        content = self._records.read(place.shard, place.offset)
        where = self._where(place.shard, place.offset)
        return read(decoded(parse_example(content, where), where), place)

    def left_out(self) -> str:
        """Return counts and examples of the folder's other files; else ""."""
        return summary(self._named.others())

    def _where(self, name: str, number: int) -> str:
        return f"{self._named.files.named(name)}, record {number}"


class Decoded(NamedTuple):
    """Decoded content of an example."""

    key: str
    image: bytes
    values: Columns
    problem: str


def decoded(features: Mapping[str, Sequence[Any]], where: str) -> Decoded:
    """Return the image, captions and numbers of an example.

    Args:
      features: lists of bytes or of numbers, by name.
      where: name of the example in messages.

    Raises:
      LiditError: when no feature is an image.
    """
    name = next((name for name in IMAGES if name in features), None)
    if name is None or not isinstance(features[name][0], bytes):
        raise LiditError(
            f"{where} has no feature 'image' or 'image/encoded' with an image's encoded file, only "
            f"{', '.join(map(repr, sorted(features)[:10]))}: write it so, or by `lidit data "
            "convert`"
        )
    found, key, problem = dict[str, Any](), "", ""
    for feature, values in features.items():
        if feature == name:
            continue
        if feature == KEY and isinstance(values[0], bytes):
            key = values[0].decode("utf-8", "backslashreplace")
        elif not isinstance(values[0], bytes):
            if len(values) == 1:
                found[feature] = values[0]
        elif texts := _texts(values):
            numbered = {f"{feature}_{i}": text for i, text in enumerate(texts)}
            found |= numbered if len(texts) > 1 else {feature: texts[0]}
    try:
        known = columns(found, where)
    except LiditError as error:
        known, problem = Columns({}, {}), str(error)
    image = features[name][0]
    if not image:
        problem = f"{where} has an empty image: remove it"
    return Decoded(key, image, known, problem)


def scanned(found: Decoded, key: str, number: int) -> ScannedRecord:
    """Return the scan of a decoded record; `key` is its name if it has none of its own."""
    return ScannedRecord(
        found.key or key,
        number,
        0,
        partial(_opened, found),
        found.values.captions,
        found.values.numbers,
        found.problem,
    )


def read(found: Decoded, place: Place) -> Record:
    """Return a decoded record. Raises `LiditError` for a problem, or a wrong name."""
    if found.problem:
        raise LiditError(found.problem)
    if found.key and found.key != place.key:
        raise LiditError(
            f"{place.shard} no longer holds {place.key} as it was indexed: index it again"
        )
    return Record(found.image, found.values.captions)


def write_records(
    path: Path, records: Iterable[tuple[str, bytes, Mapping[str, str], Mapping[str, float]]]
) -> int:
    """Write an ArrayRecord file that appears when complete; return the number of records.

    Equal records give equal bytes.

    Args:
      path: of this machine or in a bucket.
      records: key, encoded image, captions and numbers (kept in 32 bits) of each.

    Raises:
      LiditError: for a column with the name of the image or the key.
    """
    return write_record_file(path, (_example(*record) for record in records))


def _example(
    key: str, image: bytes, captions: Mapping[str, str], numbers: Mapping[str, float]
) -> bytes:
    if taken := ({*captions, *numbers} & {*IMAGES, KEY}) or captions.keys() & numbers:
        raise LiditError(f"{key}: the column {min(taken)!r} must be called otherwise")
    texts = {name: [text.encode()] for name, text in captions.items()}
    scores = {name: [float(number)] for name, number in numbers.items()}
    return write_example({KEY: [key.encode()], IMAGE: [image], **texts, **scores})


def _opened(found: Decoded) -> BinaryIO:
    if not found.image:
        raise LiditError(found.problem)
    return io.BytesIO(found.image)


def _texts(values: Sequence[bytes]) -> list[str]:
    """Return the texts among values; other bytes, such as a mask's file, are excluded."""
    texts = []
    for value in values:
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return []
        if "\0" in text or broken_characters(text):
            return []
        texts.append(text)
    return texts
