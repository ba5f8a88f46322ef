"""Images of a folder with one listing of captions: JSON lines or CSV."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, BinaryIO, NamedTuple

from lidit_jax.config.text import broken_characters
from lidit_jax.data.digests import short_digest
from lidit_jax.data.folder_listing import summary
from lidit_jax.data.sources.columns import Columns, columns
from lidit_jax.data.sources.image_chunks import CHUNK, digest_of
from lidit_jax.data.sources.listed_lines import EXAMPLE, Line, fields, is_csv, row, split_lines
from lidit_jax.data.sources.protocol import Place, Record, ScannedRecord, Shard
from lidit_jax.errors import LiditError
from lidit_jax.io.files import Files

LISTINGS = ("captions.jsonl", "metadata.jsonl", "captions.csv", "metadata.csv")
"""Names of a listing; the first one in a folder is used."""
_FILE_KEYS = ("file", "file_name")
"""Fields of a listing with the image's name."""


class _Part(NamedTuple):
    """Part of the listing, as encoded in the name of a shard."""

    start: int
    """Start in bytes."""
    stop: int
    line: int
    """Number of its first line."""


class CaptionListing:
    """Images in the order of a listing's lines; an image may have several."""

    def __init__(self, files: Files, listing: str):
        """Set the path; no file is read yet.

        Args:
          files: files of the folder.
          listing: name of the listing in it.
        """
        self._files, self._listing = files, listing

    def __reduce__(self) -> tuple[type[CaptionListing], tuple[Files, str]]:
        return CaptionListing, (self._files, self._listing)

    def shards(self) -> Sequence[Shard]:
        """Return shards of at most 10,000 lines each, with the versions of their images."""
        versions = self._files.listing().files
        whole = self._files.version(self._listing)
        shards, chunk = [], list[tuple[Line, str | None]]()
        for entry in self._lines():
            chunk.append(entry)
            if len(chunk) == CHUNK:
                shards.append(self._shard(chunk, versions, whole))
                chunk.clear()
        if chunk:
            shards.append(self._shard(chunk, versions, whole))
        if not shards:
            raise LiditError(f"{self._files.named(self._listing)} is empty: write {EXAMPLE}")
        return shards

    def scan(self, shard: Shard) -> Iterator[ScannedRecord]:
        """Yield the lines of a shard, in order."""
        part, listing = _part(shard.name), self._files.named(self._listing)
        content = self._files.read_range(self._listing, part.start, part.stop - part.start)
        header = self._header
        for line in split_lines(io.BytesIO(content), listing, part.start, part.line):
            yield self._scanned(line, header)

    def read(self, place: Place) -> Record:
        """Read one image, with the captions of one line."""
        name, found = self._read_line(place)
        return Record(self._files.read(name), found.captions)

    def read_captions(self, place: Place) -> Mapping[str, str]:
        """Read the captions of one line."""
        return self._read_line(place)[1].captions

    def left_out(self) -> str:
        """Return counts by kind and examples of files without a line; else ""."""
        named = {name for _, name in self._lines()}
        return summary(set(self._files.listing().files) - named - {self._listing})

    def _read_line(self, place: Place) -> tuple[str, Columns]:
        """Return the image of an indexed line, and the line's content."""
        content = self._files.read_range(self._listing, place.offset, place.length)
        # The line's number is unknown; messages state the record.
        line = Line(place.offset, 0, content)
        try:
            return self._parsed(line, self._header)
        except LiditError as error:
            raise LiditError(
                f"{self._files.named(self._listing)} has changed since it was indexed, {place.key} "
                "is no longer there: index it again"
            ) from error

    def _scanned(self, line: Line, header: Sequence[str]) -> ScannedRecord:
        key, found, problem = f"{self._listing}:{line.number}", Columns({}, {}), ""
        try:
            name, found = self._parsed(line, header)
            repeated = short_digest(name.encode()) in self._repeated
            key = f"{name}:{line.number}" if repeated else name
            opened = partial(self._files.open, name)
        except LiditError as error:
            problem = str(error)
            opened = partial(_refuse, problem)
        return ScannedRecord(
            key, line.offset, len(line.content), opened, found.captions, found.numbers, problem
        )

    def _parsed(self, line: Line, header: Sequence[str]) -> tuple[str, Columns]:
        """Return the image of a line, and the line's content."""
        record, name = self._named(line, header)
        where = f"{self._files.named(self._listing)}, line {line.number}"
        found = columns({k: v for k, v in record.items() if k not in _FILE_KEYS}, where)
        if not found.captions:
            raise LiditError(f"{where}: {name} has no caption: write {EXAMPLE}")
        return name, found

    def _named(self, line: Line, header: Sequence[str]) -> tuple[dict[str, Any], str]:
        """Return the fields of a line, and the image's name."""
        listing = self._files.named(self._listing)
        where = f"{listing}, line {line.number}"
        record = fields(line, header, listing)
        name = _image_name(record, self._files.root, where)
        if broken_characters(name):
            raise LiditError(f"{where}: the name {name!r} is damaged: write it anew, in UTF-8")
        return record, name

    def _lines(self) -> Iterator[tuple[Line, str | None]]:
        """Yield each line of the listing with the name of its image."""
        header = self._header
        with self._files.stream(self._listing) as stream:
            lines = split_lines(stream, self._files.named(self._listing))
            if is_csv(self._listing):
                next(lines, None)
            for line in lines:
                try:
                    yield line, self._named(line, header)[1]
                except LiditError:
                    yield line, None

    @cached_property
    def _header(self) -> list[str]:
        """Return the column names of CSV."""
        if not is_csv(self._listing):
            return []
        named = self._files.named(self._listing)
        with self._files.stream(self._listing) as stream:
            line = next(split_lines(stream, named), Line(0, 1, b""))
        names = [name.strip() for name in row(line, named)] if line.content else []
        if not set(_FILE_KEYS) & set(names) or len(set(names)) < len(names):
            raise LiditError(
                f"{named}: its first line names no column {_FILE_KEYS[1]!r}, or one twice: begin "
                "it with file_name,text"
            )
        return names

    @cached_property
    def _repeated(self) -> frozenset[bytes]:
        """Return digests of the images with several lines."""
        seen, repeated = set[bytes](), set[bytes]()
        for _, name in self._lines():
            if name is not None:
                digest = short_digest(name.encode())
                (repeated if digest in seen else seen).add(digest)
        return frozenset(repeated)

    def _shard(
        self, chunk: list[tuple[Line, str | None]], versions: dict[str, str], whole: str
    ) -> Shard:
        first, last = chunk[0][0], chunk[-1][0]
        part = _Part(first.offset, last.offset + len(last.content), first.number)
        digest = digest_of([name or "" for _, name in chunk], versions)
        return Shard(f"{self._listing}:{part.start}-{part.stop}:{part.line}", f"{whole}-{digest}")


def _part(name: str) -> _Part:
    _, span, line = name.rsplit(":", 2)
    start, _, stop = span.partition("-")
    return _Part(int(start), int(stop), int(line))


def _refuse(problem: str) -> BinaryIO:
    raise LiditError(problem)


def _image_name(record: Mapping[str, Any], folder: str, where: str) -> str:
    """Return the image name in a record of a listing, relative to its folder.

    Args:
      record: one line of the listing.
      folder: name of the folder in messages.
      where: name of the line in messages.

    Raises:
      LiditError: when it has none, or names one outside of the folder.
    """
    named = [record[key] for key in _FILE_KEYS if key in record]
    if not named or not isinstance(named[0], str) or not named[0]:
        raise LiditError(f"{where}: write {EXAMPLE}")
    name = named[0]
    if name.startswith("/") or ".." in name.split("/"):
        raise LiditError(
            f"{where}: {name!r} is not inside of {folder}: put the image, or a link to it, there"
        )
    return posixpath.normpath(name)
