"""Output files: found unwritable before the work starts, and never left half written."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lidit_jax.errors import LiditError
from lidit_jax.io.paths import in_bucket


@contextmanager
def writable_folder(folder: Path, option: str) -> Iterator[Path]:
    """Makes `folder` and proves that files can be written there, before any model loads.

    If the body fails, the folders made here are taken away again unless there are files in them.
    A bucket has no folders to make or take away, and is never made itself.

    Args:
      folder: Where the files will go; missing parents are made too.
      option: The option that named it, for the message ("--out").

    Raises:
      LiditError: when the folder cannot be made or written to.
    """
    if in_bucket(folder):
        _prove_writable(folder, option)
        yield folder
        return
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _remove_empty(missing)
        raise LiditError(
            f"{option}: cannot write to {folder} ({error.strerror}): "
            "name a folder that you may write to"
        ) from error
    try:
        yield folder
    except BaseException:
        _remove_empty(missing)
        raise


@contextmanager
def writable_file(path: Path | None, option: str, suffix: str = "") -> Iterator[Path | None]:
    """Proves that a file can be written at `path`, as `writable_folder` does; None is left alone.

    Args:
      path: where it will be.
      option: the option that named it, for the message ("--json").
      suffix: what its name must end with (".png").

    Raises:
      LiditError: when it is a folder, ends otherwise, or cannot be written.
    """
    if path is None:
        yield None
        return
    if path.is_dir():
        raise LiditError(f"{option}: {path} is a folder: name a file in it")
    if not path.name.endswith(suffix):
        raise LiditError(f"{option}: {path} must end in {suffix}")
    with writable_folder(path.parent, option):
        yield path


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at `path` only once it is complete.

    On a disk it is written beside its name and renamed; in a bucket it is uploaded when the body
    has ended, and an upload that is cut off leaves nothing.
    """
    if in_bucket(path):
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with path.open("wb") as remote:
                shutil.copyfileobj(file, remote)
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        # mkstemp makes files that only their owner may read.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _prove_writable(folder: Path, option: str) -> None:
    """Writes an object below `folder` and deletes it."""
    probe = folder / f".lidit-{uuid.uuid4().hex}"
    try:
        probe.write_bytes(b"x")
        probe.unlink()
    # Each store's client has errors of its own; whatever it was, nothing can be written there.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise LiditError(
            f"{option}: cannot write to {folder} ({reason}): does the bucket exist, and do your "
            "credentials let you write to it?"
        ) from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and all(path.is_dir() for path in folder.rglob("*")):
            shutil.rmtree(folder)
