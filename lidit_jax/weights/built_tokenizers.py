"""Cache of `tokenizer.json` files that are built from older files of a tokenizer."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import tokenizers

from lidit_jax.io.kept_folders import made_once
from lidit_jax.io.paths import cache_dir

_FORMAT = 1
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def built_once(files: Sequence[Path], kind: str, build: Callable[[], tokenizers.Tokenizer]) -> Path:
    """Return a folder of the user's cache with a `tokenizer.json`, and the settings beside `files`.

    Args:
      files: what it is built from, all in one folder.
      kind: begin of the folder's name.
      build: builds it, unless the cache has it.
    """
    folder = files[0].parent
    digest = hashlib.sha256(str(_FORMAT).encode())
    for path in (*files, *(folder / name for name in _SETTINGS)):
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    kept = cache_dir() / "tokenizers" / f"{kind}-{digest.hexdigest()[:32]}"

    def make(place: Path) -> None:
        build().save(str(place / "tokenizer.json"))
        for name in _SETTINGS:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, place / name)

    return made_once(kept, lambda place: (place / "tokenizer.json").is_file(), make)
