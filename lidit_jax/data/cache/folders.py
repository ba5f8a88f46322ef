"""Names, locks and write access of folders with prepared data."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lidit_jax.errors import LiditError


def content_key(kind: str, description: dict[str, Any]) -> str:
    """Return a folder name with a digest of the description."""
    text = json.dumps(description, sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@contextmanager
def writable_cache_folder(folder: Path) -> Iterator[None]:
    """Create a folder for cached data, with a clear error if it is not writable.

    Raises:
      LiditError: instead of an `OSError`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise LiditError(
            f"cannot write prepared data to {folder}: {error.strerror or error}; "
            "set config.data.cache_dir to a folder with free space"
        ) from error


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock the folder against other processes; the lock of a killed process is released."""
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another run, which prepares {folder}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
