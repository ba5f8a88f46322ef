"""Where things live on disk: the user's cache, and the files that ship inside the package."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGED = Path(__file__).parent / "packaged"
"""Files of the wheel that are not code: `configs/` (recipes) and `demo/` (the small model)."""


def cache_dir() -> Path:
    """The user's cache: `$LIDIT_CACHE`, else `~/.cache/lidit`. Not created here.

    It holds only what can be made again: converted encoders, generated scenes, text features and
    compiled programs (`xla/`). Deleting it costs time, never work.
    """
    return Path(os.environ.get("LIDIT_CACHE") or "~/.cache/lidit").expanduser()
