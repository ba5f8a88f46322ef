"""Parser of caption listings (JSON lines, CSV) that keeps each record's byte range."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

from lidit_jax.data.sources.columns import CAPTION_KEYS, json_object
from lidit_jax.errors import LiditError

EXAMPLE = '{"file": "NAME.png", "caption": "TEXT"}'
"""Example line of a listing, for messages."""
_LONGEST = 2**24
"""Largest record in bytes."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One record in the file."""

    offset: int
    """Start in bytes."""
    number: int
    """Line number, from 1; of several lines the first."""
    content: bytes
    """Bytes, with the line break at the end."""


def split_lines(stream: BinaryIO, listing: str, offset: int = 0, number: int = 1) -> Iterator[Line]:
    r"""Yield the records of a listing; CSV records may have line breaks between quotation marks.

    Lines end only at "\n". Lines without a record are skipped.

    Args:
      stream: the file, or a part of it that begins with a record.
      listing: name of the file.
      offset: byte offset of the stream in the file.
      number: line number of the stream's start.

    Raises:
      LiditError: when a record is too long, as with a quotation mark that is not closed.
    """
    quoted = is_csv(listing)
    held, first, marks = bytearray(), number, 0
    while piece := stream.readline(_LONGEST):
        held += piece
        marks += piece.count(b'"') if quoted else 0
        if len(held) >= _LONGEST:
            raise LiditError(
                f"{listing}, line {first}: it is longer than {_LONGEST >> 20} MiB: end it with a "
                "line break" + (", and close its quotation mark" if quoted else "")
            )
        number += 1
        if marks % 2:
            continue
        if held.strip():
            yield Line(offset, first, bytes(held))
        offset, first, marks = offset + len(held), number, 0
        held.clear()
    if held.strip():
        yield Line(offset, first, bytes(held))


def is_csv(listing: str) -> bool:
    """Return whether a listing is CSV, by its name."""
    return listing.endswith(".csv")


def fields(line: Line, header: Sequence[str], listing: str) -> dict[str, Any]:
    """Return the fields of a record.

    Args:
      line: the record.
      header: column names of CSV; not used for JSON.
      listing: the file's name.

    Raises:
      LiditError: when it is not a record; states the line.
    """
    where = f"{listing}, line {line.number}"
    if not is_csv(listing):
        return json_object(line.content.removeprefix(_MARK), where, EXAMPLE)
    values = row(line, listing)
    if len(values) != len(header):
        raise LiditError(
            f"{where}: {len(values)} fields, and the first line names {len(header)}: put texts "
            "with commas between quotation marks"
        )
    return {
        name: float(value) if name not in CAPTION_KEYS and _NUMBER.fullmatch(value) else value
        for name, value in zip(header, values, strict=True)
        if name and value
    }


def row(line: Line, listing: str) -> list[str]:
    """Return the fields of a CSV row, as texts.

    Raises:
      LiditError: when it is not one row, or not UTF-8.
    """
    where = f"{listing}, line {line.number}"
    try:
        text = line.content.decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except UnicodeDecodeError as error:
        raise LiditError(f"{where}: not UTF-8 text: save it as UTF-8") from error
    except csv.Error as error:
        raise LiditError(f"{where}: not CSV ({error})") from error
    if len(rows) != 1:
        raise LiditError(f"{where}: not CSV: write quotation marks of a text twice, and around it")
    return rows[0]
