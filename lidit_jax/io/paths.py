"""Where things live: the user's cache, the files that ship inside the package, and buckets."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import cast

from etils import epath

from lidit_jax.errors import LiditError

PACKAGE_DATA = Path(__file__).parents[1] / "packaged"
"""Files of the wheel that are not code: `configs/` (recipes) and `demo/` (the small model)."""

_STORES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
"""Scheme -> the package that reaches the store, and the extra of lidit-jax that installs it."""


def cache_dir() -> Path:
    """The user's cache: `$LIDIT_CACHE`, else `~/.cache/lidit`. Not created here.

    It holds only what can be made again: converted encoders, what transformers makes of tokenizers,
    generated scenes, text features and compiled programs (`xla/`). Deleting it costs time, never
    work.
    """
    return Path(os.environ.get("LIDIT_CACHE") or "~/.cache/lidit").expanduser()


def to_path(text: str | os.PathLike[str]) -> Path:
    """A folder or file of this machine, or with `gs://BUCKET/…` or `s3://BUCKET/…` of a bucket.

    What lies in a bucket is etils' `epath.Path`: pathlib's methods but `rglob`, and the semantics
    of an object store. An object appears whole or not at all, nothing can be appended to it, a
    folder is no more than a part of names, and renaming is copying.

    Raises:
      LiditError: for another scheme, a URL without a bucket, a null character, or when the package
        that reaches the store is not installed.
    """
    text = os.fspath(text)
    _refuse_impossible(text)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Path(text)
    if scheme not in _STORES:
        raise LiditError(f"{text}: name a folder, or a bucket as gs://BUCKET/… or s3://BUCKET/…")
    if not rest.partition("/")[0]:
        raise LiditError(f"{text} names no bucket: write {scheme}://BUCKET/…")
    package, extra = _STORES[scheme]
    if importlib.util.find_spec(package) is None:
        raise LiditError(f"{text} needs {package}: pip install 'lidit-jax[{extra}]'")
    _forget_listings(scheme)
    # It has pathlib's methods without being one.
    return cast(Path, epath.Path(text))


def in_bucket(path: Path) -> bool:
    """Whether a path that `to_path` made lies in a bucket."""
    return isinstance(path, epath.Path) and "://" in os.fspath(path)


def local_path(text: str) -> Path:
    """A path of this machine. Raises `LiditError` for a URL, which would become a folder "gs:"."""
    _refuse_impossible(text)
    if "://" in text:
        raise LiditError(f"{text}: this must be a local path; copy to or from the bucket beside it")
    return Path(text)


def _refuse_impossible(text: str) -> None:
    """Recipes can hold texts that name no file: with null characters, or halves of others."""
    try:
        possible = "\0" not in text and os.fsencode(text) is not None
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise LiditError(f"{text!r} holds a character that no path can hold: name another")


def _forget_listings(scheme: str) -> None:
    """Lets each look at a folder ask the store: TensorStore and other hosts write there too."""
    # One client for all of etils' paths; TensorFlow's, where it is installed, knows no such choice.
    os.environ.setdefault("EPATH_USE_TF", "false")
    from fsspec.config import conf

    for protocol in {scheme, "gcs"} if scheme == "gs" else {scheme}:
        conf.setdefault(protocol, {}).setdefault("use_listings_cache", False)
