"""Output files: found unwritable before the work starts, and never left half written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lidit_jax.errors import LiditError


@contextmanager
def writable_folder(folder: Path, option: str) -> Iterator[Path]:
    """Makes `folder` and proves that files can be written there, before any model loads.

    If the body fails, the folders made here are taken away again unless there are files in them.

    Args:
      folder: Where the files will go; missing parents are made too.
      option: The option that named it, for the message ("--out").

    Raises:
      LiditError: when the folder cannot be made or written to.
    """
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
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at `path` only once it is complete: written beside it, then renamed."""
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


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and all(path.is_dir() for path in folder.rglob("*")):
            shutil.rmtree(folder)
