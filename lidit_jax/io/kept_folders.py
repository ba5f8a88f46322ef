"""Folders in the user's cache that are made once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def made_once(folder: Path, is_whole: Callable[[Path], bool], make: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, made now unless it is there.

    It appears in one rename, so an interrupted or concurrent process leaves nothing incomplete.

    Args:
      folder: its path.
      is_whole: whether a folder is a whole result; one that is not is replaced.
      make: fills an empty folder.
    """
    if is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        make(temporary)
        temporary.chmod(0o755)
        try:
            os.replace(temporary, folder)
        except OSError:
            if not is_whole(folder):  # else another process has finished first
                shutil.rmtree(folder)
                os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
