"""Reader of tar members and their byte ranges, with clear errors for damaged archives."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, cast

from lidit_jax.errors import LiditError

_BLOCK = 2**20
_GZIP = b"\x1f\x8b"


class Member(NamedTuple):
    """File in a tar, or link."""

    name: str
    info: tarfile.TarInfo
    start: int
    """Start of its headers, in bytes."""
    stop: int
    """Start of the next member's headers, in bytes."""


def open_tar(stream: BinaryIO, named: str) -> tarfile.TarFile:
    """Open a tar for reading member by member.

    Raises:
      LiditError: when it is not a tar.
    """
    beginning = stream.read(len(_GZIP))
    stream.seek(0)
    if beginning == _GZIP:
        raise LiditError(f"{named} is compressed: decompress it (gunzip)")
    try:
        return tarfile.open(fileobj=stream, mode="r:")
    except (tarfile.TarError, OSError, ValueError) as error:
        raise LiditError(
            f"{named} is no tar, or is cut off: copy it again ({error or type(error).__name__})"
        ) from error


def members(tar: tarfile.TarFile, named: str, whole: bool = True) -> Iterator[Member]:
    """Yield the files and links in a tar, in order, without folders and devices.

    Args:
      tar: result of `open_tar`.
      named: its name in messages.
      whole: whether it must have the end of a tar: False for the bytes of some members.

    Raises:
      LiditError: when it is damaged or truncated.
    """
    try:
        while info := tar.next():
            if info.size < 0 or tar.offset <= info.offset:  # it would loop forever
                raise _damaged(named, f"a member of {info.size} bytes")
            # The members that tarfile stores would fill the memory.
            cast(Any, tar).members = []
            if info.isfile() or info.islnk() or info.issym():
                yield Member(info.name, info, info.offset, tar.offset)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise _damaged(named, str(error)) from error
    if whole:
        _check_end(tar, named)


def content(tar: tarfile.TarFile, member: Member, named: str) -> bytes:
    """Return the content of a file in a tar.

    Raises:
      LiditError: when the tar ends before it.
    """
    try:
        file = tar.extractfile(member.info)
        return file.read() if file else b""
    except (tarfile.TarError, OSError) as error:
        raise _damaged(named, str(error)) from error


def _check_end(tar: tarfile.TarFile, named: str) -> None:
    """Check that the tar is complete: tarfile treats a damaged or missing header as the end."""
    stream = tar.fileobj
    if stream is None:
        return
    stream.seek(tar.offset)
    rest = stream.read(_BLOCK)
    if not rest:
        raise _damaged(named, "its end mark is missing")
    while rest:
        if rest.strip(b"\0"):
            raise _damaged(named, f"no member and no end at byte {tar.offset}")
        rest = stream.read(_BLOCK)


def _damaged(named: str, reason: str) -> LiditError:
    return LiditError(
        f"{named} is damaged, cut off, or two tars in one: copy or write it again ({reason})"
    )
