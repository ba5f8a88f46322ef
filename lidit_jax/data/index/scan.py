"""Scan of one shard into index columns; images are decoded only on request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lidit_jax.config.text import broken_characters, clean_text
from lidit_jax.data.caption_flags import caption_flags
from lidit_jax.data.digests import short_digest, stream_digest
from lidit_jax.data.index.columns import COLUMNS, MISSING, NEAR, TABLES, Part, Problem, encode_key
from lidit_jax.data.index.perceptual_hash import perceptual_hash
from lidit_jax.data.sources.protocol import RecordSource, ScannedRecord, Shard
from lidit_jax.errors import LiditError
from lidit_jax.io.image_files import read_header


def scan_shard(source: RecordSource, shard: Shard, near_duplicates: bool = False) -> Part:
    """Return the columns of a shard's records, in order.

    Args:
      source: the source of the shard.
      shard: one of its shards.
      near_duplicates: whether to decode the images for a perceptual hash of each.

    Raises:
      LiditError: when the shard cannot be read to its end; problems of single records are in the
        column `problem` instead.
    """
    kinds = COLUMNS | ({NEAR: "<u8"} if near_duplicates else {})
    rows: dict[str, list[int]] = {name: [] for name in kinds}
    keys = bytearray()
    chars: dict[str, dict[int, int]] = {}
    flags: dict[str, dict[int, int]] = {}
    numbers: dict[str, dict[int, float]] = {}
    problems: list[list[Any]] = []
    for record in source.scan(shard):
        number = len(rows["offset"])
        key = encode_key(record.key)
        keys += key
        row = {
            "offset": record.offset,
            "length": record.length,
            "name": _number(short_digest(key)),
            "key_end": len(keys),
        }
        facts, message = _facts(record, near_duplicates)
        if message:
            problems.append([number, message])
        row |= facts
        for name, values in rows.items():
            values.append(row.get(name, 0))
        for name, caption in record.captions.items():
            chars.setdefault(name, {})[number] = len(clean_text(caption))
            flags.setdefault(name, {})[number] = caption_flags(caption)
        for name, value in record.numbers.items():
            numbers.setdefault(name, {})[number] = value
    count = len(rows["offset"])
    return Part(
        columns={name: np.array(values, kinds[name]) for name, values in rows.items()},
        caption_names=sorted(chars),
        caption_chars=_table(chars, count, "caption_chars"),
        caption_flags=_table(flags, count, "caption_flags"),
        number_names=sorted(numbers),
        numbers=_table(numbers, count, "numbers"),
        keys=np.frombuffer(bytes(keys), np.uint8),
        problems=problems,
    )


def _facts(record: ScannedRecord, near_duplicates: bool) -> tuple[dict[str, int], str]:
    """Return the metadata of the image and the captions, and their problem."""
    if record.problem:
        return {"problem": Problem.RECORD}, record.problem
    for name, caption in record.captions.items():
        if broken_characters(caption):
            return (
                {"problem": Problem.CAPTION},
                f"{record.key}: {name} holds half of a character: write it anew, in UTF-8",
            )
    facts: dict[str, int] = {}
    kind = Problem.IMAGE
    try:
        with record.open_image() as stream:
            facts["content"] = _content(stream_digest(stream), record.captions)
            stream.seek(0)
            header = read_header(stream, record.key)
            facts |= {"width": header.width, "height": header.height}
            if near_duplicates:
                kind = Problem.PIXELS
                stream.seek(0)
                facts[NEAR] = perceptual_hash(stream, header, record.key)
    except LiditError as error:
        return facts | {"problem": kind}, str(error)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return facts | {"problem": kind}, f"{record.key} cannot be opened ({reason})"
    return facts, ""


def _content(image: bytes, captions: Mapping[str, str]) -> int:
    """Return the digest of a record's image and captions together."""
    texts = [text.encode() for name in sorted(captions) for text in (name, captions[name])]
    return _number(short_digest(image, *texts))


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little")


def _table(cells: Mapping[str, Mapping[int, float]], count: int, table_name: str) -> np.ndarray:
    """Return one row of values over all records per name, in order."""
    table = np.full((len(cells), count), MISSING[table_name], TABLES[table_name])
    for row, name in zip(table, sorted(cells), strict=True):
        row[list(cells[name])] = list(cells[name].values())
    return table
