"""WebDataset: tars in which the files of a record are consecutive and share a name."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import BinaryIO, cast

from lidit_jax.data.folder_listing import is_image, summary
from lidit_jax.data.sources.columns import Columns, caption_text, columns, json_object
from lidit_jax.data.sources.protocol import CAPTION, Place, Record, ScannedRecord, Shard
from lidit_jax.data.sources.shard_names import NamedFiles
from lidit_jax.data.sources.tar_members import Member, content, members, open_tar
from lidit_jax.errors import LiditError
from lidit_jax.io.files import is_litter

SUFFIX = ".tar"
COMPRESSED = re.compile(r"\.(tar\.(gz|bz2|xz|zst|lz4|z)|tgz|tbz2?|txz)$", re.IGNORECASE)
"""Names of compressed tars, whose members cannot be read individually."""
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
"""Key and suffix: the path up to the first dot of the file's name, and the rest."""
_PREFERRED = ("jpg", "jpeg", "png", "webp")
_TEXTS = ("txt", "caption")
_LONGEST_TEXT = 2**24
"""Largest text or JSON file, in bytes."""


class WebDataset:
    """Tars as written by `webdataset` and `img2dataset`: `0001.jpg`, `0001.txt`, `0001.json`, …

    Consecutive files with equal names up to the first dot are one record. It consists of the
    image (of several, jpg, jpeg, png and webp are preferred), captions from `.txt` and `.caption`,
    captions and numbers from `.json`, and `.cls` as a number; `0001.short.txt` is a caption named
    "short".
    """

    def __init__(self, path: str):
        """Set the path; no file is read yet.

        Args:
          path: a tar, a folder of tars, or a pattern such as `photos/{000..123}.tar`, of this
            machine or of a bucket.

        Raises:
          LiditError: when the path is that of a compressed tar.
        """
        if COMPRESSED.search(path):
            raise _compressed(path)
        self._path = path
        self._named = NamedFiles(path, SUFFIX)

    def __repr__(self) -> str:
        return f"webdataset:{self._path}"

    def shards(self) -> Sequence[Shard]:
        """Return one shard per tar.

        Raises:
          LiditError: when there is none, an explicitly named one is missing, or the folder holds
            compressed ones.
        """
        for name in self._named.others():
            if COMPRESSED.search(name):
                raise _compressed(self._named.files.named(name))
        return [Shard(name, version) for name, version in self._named.find().items()]

    def scan(self, shard: Shard) -> Iterator[ScannedRecord]:
        """Yield the records of a tar, in order."""
        named = self._named.files.named(shard.name)
        seen = dict[str, int]()
        with self._named.files.stream(shard.name) as stream, open_tar(stream, named) as tar:
            for run in _runs(tar, named, whole=True):
                count = seen[run.key] = seen.get(run.key, 0) + 1
                yield _scanned(run, shard.name, count)

    def read(self, place: Place) -> Record:
        """Read one record in one request. Raises `LiditError` when it is not there."""
        named = self._named.files.named(place.shard)
        span = self._named.files.read_range(place.shard, place.offset, place.length)
        try:
            with open_tar(io.BytesIO(span), named) as tar:
                run = next(_runs(tar, named, whole=False), None)
                if run is None or _key(place.shard, run.key) != place.key:
                    raise LiditError(f"{named} holds something else there")
                captions = run.columns.captions
                return Record(content(tar, run.image, run.where), captions)
        except LiditError as error:
            raise LiditError(
                f"{named} no longer holds {place.key} as it was indexed: index it again ({error})"
            ) from error

    def left_out(self) -> str:
        """Return counts by kind and examples of files that are not tars; else ""."""
        return summary(self._named.others())


@dataclass
class _Run:
    """Consecutive files with one key."""

    tar: tarfile.TarFile
    named: str
    """Name of the tar in messages."""
    key: str
    members: dict[str, Member] = field(default_factory=dict)
    """Files by suffix."""
    texts: dict[str, bytes] = field(default_factory=dict)
    """Contents of text files, by suffix."""
    twice: str = ""
    """A suffix that occurs twice."""

    def add(self, suffix: str, member: Member) -> None:
        """Append a file; the content of text files is read."""
        if suffix in self.members:
            self.twice = suffix
        self.members[suffix] = member
        last = suffix.rpartition(".")[2]
        if member.info.isfile() and (last in _TEXTS or suffix in ("json", "cls")):
            small = member.info.size <= _LONGEST_TEXT
            self.texts[suffix] = content(self.tar, member, self.named) if small else b"\xff"

    @property
    def where(self) -> str:
        """Return the name of the record in messages."""
        return f"{self.named}, {self.key!r}"

    @property
    def span(self) -> tuple[int, int]:
        """Return start and length, in bytes."""
        start = min(member.start for member in self.members.values())
        return start, max(member.stop for member in self.members.values()) - start

    @cached_property
    def image(self) -> Member:
        """Return the image. Raises `LiditError` when there is none, or the choice is ambiguous."""
        found = [suffix for suffix in self.members if is_image(f"_.{suffix}")]
        simple = [suffix for suffix in found if "." not in suffix]
        if not simple and len(found) > 1:
            raise LiditError(
                f"{self.where} has several images: call the one to use "
                f"{_PREFERRED[0]} ({', '.join(sorted(found))})"
            )
        if not found:
            raise LiditError(
                f"{self.where} has no image: write one with it, as jpg or png "
                f"(it has {', '.join(sorted(self.members))})"
            )
        best = min(
            simple or found,
            key=lambda suffix: (
                _PREFERRED.index(suffix) if suffix in _PREFERRED else len(_PREFERRED),
                suffix,
            ),
        )
        member = self.members[best]
        if not member.info.isfile() or member.info.issparse():
            raise LiditError(
                f"{self.where}: its {best} is a link or a sparse file: write the tar with "
                "--hard-dereference --dereference"
            )
        return member

    @cached_property
    def columns(self) -> Columns:
        """Return captions and numbers. Raises `LiditError` for no caption, or a damaged one."""
        found = Columns({}, {})
        for suffix in sorted(self.texts, key=lambda suffix: (*_order(suffix), suffix)):
            where, words = f"{self.where}: its {suffix}", self.texts[suffix]
            if suffix == "json":
                fields = columns(json_object(words, where), where)
                _add(found.captions, fields.captions, suffix)
                found.numbers.update(fields.numbers)
            elif suffix == "cls":
                found.numbers.update(_class_number(words))
            else:
                name, _, last = suffix.rpartition(".")
                text = caption_text(words, where)
                columns({name: text}, where)
                _add(found.captions, {name or CAPTION: text} if text else {}, last)
        if not found.captions:
            raise LiditError(
                f"{self.where} has no caption: write one with it, as txt or in json "
                f"(it has {', '.join(sorted(self.members))})"
            )
        return found


def _runs(tar: tarfile.TarFile, named: str, whole: bool) -> Iterator[_Run]:
    """Yield the records of a tar, without hidden files and names without a dot."""
    run: _Run | None = None
    for member in members(tar, named, whole):
        name = member.name.removeprefix("./")
        match = _NAME.fullmatch(name)
        if match is None or _is_left_out(name):
            continue
        key, suffix = match[1], match[2].lower()
        if run is not None and run.key != key:
            yield run
            run = None
        run = run or _Run(tar, named, key)
        run.add(suffix, member)
    if run is not None:
        yield run


def _is_left_out(name: str) -> bool:
    *folders, last = name.split("/")
    hidden = any(is_litter(folder) for folder in folders if folder not in ("", ".", ".."))
    return hidden or is_litter(last) or (last.startswith("__") and last.endswith("__"))


def _scanned(run: _Run, shard: str, count: int) -> ScannedRecord:
    key, found, problem = _key(shard, run.key), Columns({}, {}), ""
    image: Member | None = None
    try:
        image = run.image
        found = run.columns
        if run.key.startswith("/") or ".." in run.key.split("/"):
            raise LiditError(f"{run.where} lies outside of the tar's folder: write it with a name")
        if run.twice:
            raise LiditError(f"{run.where} has two files {run.twice}: name them differently")
        if count > 1:
            raise LiditError(
                f"{run.where} is there {count} times, apart: name the records differently, or "
                "write their files one after the other"
            )
        if not _is_utf8(run.key):
            raise LiditError(f"{run.where} has a name that is not UTF-8: rename it")
    except LiditError as error:
        problem = str(error)
    opened = partial(_open, run.tar, image.info) if image else partial(_refuse, problem)
    if count > 1:
        key = f"{key}:{count}"
    return ScannedRecord(key, *run.span, opened, found.captions, found.numbers, problem)


def _key(shard: str, key: str) -> str:
    """Return a record's name with that of its tar, as keys may repeat in other tars."""
    return f"{shard}/{key}".encode("utf-8", "backslashreplace").decode()


def _open(tar: tarfile.TarFile, info: tarfile.TarInfo) -> BinaryIO:
    return cast(BinaryIO, tar.extractfile(info))


def _refuse(problem: str) -> BinaryIO:
    raise LiditError(problem)


def _order(suffix: str) -> tuple[int, int]:
    """Return a sort key that puts plain texts first, so that they get the plain name."""
    return suffix.count("."), (*_TEXTS, "json", "cls", suffix).index(suffix)


def _add(found: dict[str, str], captions: Mapping[str, str], suffix: str) -> None:
    """Add captions; a different caption under an existing name gets its suffix."""
    for name, text in captions.items():
        taken = name in found and found[name].strip() != text.strip()
        found[f"{suffix}.{name}" if taken else name] = text


def _class_number(content: bytes) -> dict[str, float]:
    try:
        return {"cls": float(content)}
    except ValueError:  # a name
        return {}


def _is_utf8(text: str) -> bool:
    try:
        return text.encode() is not None
    except UnicodeEncodeError:
        return False


def _compressed(path: str) -> LiditError:
    return LiditError(
        f"{path} is compressed, so that its records cannot be read one by one: decompress it "
        "(gunzip); images are compressed already"
    )
