"""The files in a tar, each with its bytes; a tar that is damaged or cut off is told as such."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, cast

from lidit_jax.errors import LiditError

_BLOCK = 2**20
_GZIP = b"\x1f\x8b"


class Member(NamedTuple):
    """A file in a tar, or a link."""

    name: str
    info: tarfile.TarInfo
    start: int
    """Where its headers begin, in bytes."""
    stop: int
    """Where the headers of the next begin."""


def open_tar(stream: BinaryIO, named: str) -> tarfile.TarFile:
    """A tar that is read member by member.

    Raises:
      LiditError: when it is none.
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
    """The files and links in a tar, in their order; folders and devices are left out.

    Args:
      tar: what `open_tar` opened.
      named: what messages call it.
      whole: whether it must end as a tar does: False for the bytes of some members.

    Raises:
      LiditError: when it is damaged or cut off.
    """
    try:
        while info := tar.next():
            if info.size < 0 or tar.offset <= info.offset:  # it would lead back, for ever
                raise _damaged(named, f"a member of {info.size} bytes")
            # What tarfile keeps of each would fill the memory.
            cast(Any, tar).members = []
            if info.isfile() or info.islnk() or info.issym():
                yield Member(info.name, info, info.offset, tar.offset)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise _damaged(named, str(error)) from error
    if whole:
        _check_end(tar, named)


def content(tar: tarfile.TarFile, member: Member, named: str) -> bytes:
    """The content of a file in a tar.

    Raises:
      LiditError: when the tar ends before it.
    """
    try:
        file = tar.extractfile(member.info)
        return file.read() if file else b""
    except (tarfile.TarError, OSError) as error:
        raise _damaged(named, str(error)) from error


def _check_end(tar: tarfile.TarFile, named: str) -> None:
    """tarfile takes a damaged header, or none, for the end."""
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
