"""Records of a listing of captions, each with its bytes: lines of JSON, or rows of CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

from lidit_jax.data.caption_files import EXAMPLE
from lidit_jax.data.sources.columns import CAPTION_KEYS, json_object
from lidit_jax.errors import LiditError

_LONGEST = 2**24
"""Bytes of a record, at most."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A record as it stands in the file."""

    offset: int
    """Where it begins, in bytes."""
    number: int
    """Its line, from 1; of several lines the first."""
    content: bytes
    """With the line break at its end."""


def split_lines(stream: BinaryIO, listing: str, offset: int = 0, number: int = 1) -> Iterator[Line]:
    r"""The records of a listing; those of CSV may hold line breaks between quotation marks.

    Lines end at "\n" alone. Those without a record are left out.

    Args:
      stream: the file, or a part of it that begins with a record.
      listing: name of the file.
      offset: where in the file the stream begins.
      number: the line with which it begins.

    Raises:
      LiditError: when a record is far too long, as where a quotation mark is not closed.
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
    """Whether a listing is CSV, by its name."""
    return listing.endswith(".csv")


def fields(line: Line, header: Sequence[str], listing: str) -> dict[str, Any]:
    """The fields of a record.

    Args:
      line: the record.
      header: names of the columns of CSV; not used for JSON.
      listing: the file's name.

    Raises:
      LiditError: when it is no record; names the line.
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
    """The fields of a row of CSV, as texts.

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
