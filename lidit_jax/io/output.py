"""Output files: checked for write access before the work starts, and written atomically."""

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

_SHOWN = 32
"""Characters of a file's name in that of its temporary file, which may not be much longer."""


@contextmanager
def writable_folder(folder: Path, option: str) -> Iterator[Path]:
    """Create `folder` and check that files can be written there, before any model loads.

    If the body fails, folders created here are removed again unless they contain files. A bucket
    has no folders to create or remove, and is never created itself.

    Args:
      folder: output folder; missing parents are created too.
      option: option that names it, for the error message ("--out").

    Raises:
      LiditError: when the folder cannot be created or written to.
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


def refuse_source(out: Path, source: Path) -> None:
    """Raise `LiditError` if writing to one folder could destroy what is read from another.

    That is the case if they are the same, or one is inside the other.

    Args:
      out: output folder, which need not exist.
      source: folder to read.
    """
    if in_bucket(out) or in_bucket(source):
        return
    written, read = out.resolve(), source.resolve()
    if written == read:
        raise LiditError(f"{out} is the folder to read: name another one to write")
    if written in read.parents or read in written.parents:
        where = "is inside" if read in written.parents else "contains"
        raise LiditError(f"{out} {where} the folder to read, {source}: name another one to write")


@contextmanager
def writable_file(path: Path | None, option: str, suffix: str = "") -> Iterator[Path | None]:
    """Check that a file can be written at `path`, as in `writable_folder`; None is allowed.

    Args:
      path: path of the file.
      option: option that names it, for the error message ("--json").
      suffix: required suffix of its name (".png").

    Raises:
      LiditError: when it is a folder, has another suffix, or cannot be written.
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
def atomic_file(path: Path, temporaries: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file that appears at `path` only once it is complete.

    On a disk a temporary file is renamed, which a killed process leaves behind; in a bucket it is
    uploaded after the body, and an interrupted upload leaves nothing.

    Args:
      path: path of the file.
      temporaries: existing folder of the temporary file, on the same disk; None for that of `path`.
    """
    if in_bucket(path):
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            with path.open("wb") as remote:
                shutil.copyfileobj(file, remote)
        return
    folder, prefix = temporaries or path.parent, f".{path.name[:_SHOWN]}."
    handle, name = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        # mkstemp creates files that only their owner may read.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a local path to write to; the file appears at `path` only once the body has succeeded.

    For writers that open files by name. A file of a bucket is written to a temporary folder, then
    uploaded.
    """
    if in_bucket(path):
        with tempfile.TemporaryDirectory(prefix="lidit-") as folder:
            local = Path(folder) / path.name
            yield local
            with local.open("rb") as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _prove_writable(folder: Path, option: str) -> None:
    """Check write access by writing an object below `folder` and deleting it."""
    probe = folder / f".lidit-{uuid.uuid4().hex}"
    try:
        probe.write_bytes(b"x")
        probe.unlink()
    # Store clients raise errors of their own; any of them means that nothing can be written.
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
