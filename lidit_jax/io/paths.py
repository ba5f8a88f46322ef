"""Paths of the user's cache, of files packaged with the code, and of buckets."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import cast

from etils import epath

from lidit_jax.errors import LiditError

PACKAGE_DATA = Path(__file__).parents[1] / "packaged"
"""Data files of the wheel: `configs/` (recipes) and `demo/` (the small model)."""

_STORES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
"""URL scheme -> package that accesses the store, and the lidit-jax extra that installs it."""


def cache_dir() -> Path:
    """Return the user's cache: `$LIDIT_CACHE`, else `~/.cache/lidit`. It is not created here.

    It contains only files that can be regenerated: converted encoders and tokenizers, generated
    scenes, text features and compiled programs (`xla/`). Deleting it costs only time.
    """
    return Path(os.environ.get("LIDIT_CACHE") or "~/.cache/lidit").expanduser()


def to_path(text: str | os.PathLike[str]) -> Path:
    """Return a local path, or a bucket path for `gs://BUCKET/…` and `s3://BUCKET/…`.

    Bucket paths are etils' `epath.Path`: pathlib's methods except `rglob`, and the semantics of an
    object store. Objects are written atomically and cannot be appended to, folders are only name
    prefixes, and renaming copies.

    Raises:
      LiditError: for another scheme, a URL without a bucket, a null character, or when the package
        that accesses the store is not installed.
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
    # epath.Path has pathlib's methods but is not a pathlib.Path.
    return cast(Path, epath.Path(text))


def in_bucket(path: Path) -> bool:
    """Return whether a path from `to_path` is in a bucket."""
    return isinstance(path, epath.Path) and "://" in os.fspath(path)


def local_path(text: str) -> Path:
    """Return a local path. Raises `LiditError` for a URL, which would become a folder "gs:"."""
    _refuse_impossible(text)
    if "://" in text:
        raise LiditError(f"{text}: this must be a local path; copy to or from the bucket beside it")
    return Path(text)


def _refuse_impossible(text: str) -> None:
    """Check that a path contains no null characters or unpaired surrogates."""
    try:
        possible = "\0" not in text and os.fsencode(text) is not None
    except UnicodeEncodeError:
        possible = False
    if not possible:
        raise LiditError(f"{text!r} contains a character that paths cannot contain: name another")


def _forget_listings(scheme: str) -> None:
    """Disable the listing cache, because TensorStore and other hosts write to the store too."""
    # Use one client for all of etils' paths: TensorFlow's cannot disable its cache.
    os.environ.setdefault("EPATH_USE_TF", "false")
    from fsspec.config import conf

    for protocol in {scheme, "gcs"} if scheme == "gs" else {scheme}:
        conf.setdefault(protocol, {}).setdefault("use_listings_cache", False)
