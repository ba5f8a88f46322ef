"""Listing and byte-range reads of files in local folders and buckets."""

from __future__ import annotations

import functools
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from lidit_jax.errors import LiditError
from lidit_jax.io.paths import to_path

_LITTER = ("__macosx", "@eadir", "thumbs.db", "desktop.ini")
"""Names left in folders by file managers and disks, besides hidden files such as `._cat.jpg`."""
_BLOCK = 2**23
"""Bytes per request to a store in sequential reads of a file."""
_OPEN_FILES = 64
"""Number of local files kept open for reads of a part."""


@dataclass
class Listing:
    """Files below a folder, without hidden and system files."""

    files: dict[str, str] = field(default_factory=dict)
    """Names, in order, each with a text that changes when the file may have changed."""
    broken: list[str] = field(default_factory=list)
    """Names that are not files: broken links, and devices."""
    errors: list[str] = field(default_factory=list)
    """Messages about folders that cannot be read, and names that cannot be encoded."""


class Files:
    """Files below a folder, with names relative to it, "/"-separated on disks and in buckets.

    It can be pickled, and its state can be shared between processes.
    """

    def __init__(self, root: str):
        """Set the folder; nothing is read yet.

        Args:
          root: a folder of this machine, with `gs://BUCKET/…` or `s3://BUCKET/…` of a bucket, or
            with `hf://datasets/USER/NAME` of the Hugging Face hub.

        Raises:
          LiditError: for a path that is none of these.
        """
        if not root:
            raise LiditError("the path is empty: name a folder")
        self.root = root.rstrip("/") or root
        _refuse_unknown(self.root)
        self._local = "://" not in root

    def named(self, name: str) -> str:
        """Return the name of a file in messages."""
        return f"{self.root.rstrip('/')}/{name}"

    def listing(self) -> Listing:
        """Return all files of the folder and its subfolders, in an order independent of the disk.

        Links to folders are followed, and no folder is read twice.

        Raises:
          LiditError: when it is not a folder, or, in a bucket, is empty.
        """
        found = self._list_local() if self._local else self._list_bucket()
        found.files = dict(sorted(found.files.items()))
        return found

    def inside(self, folder: str) -> list[str]:
        """Return the names, without the folder's, of direct entries of a subfolder; [] for none."""
        if self._local:
            try:
                return sorted(os.listdir(self._path(folder)))
            except OSError:
                return []
        store, path = self._store(folder)
        try:
            return sorted(name.rpartition("/")[2] for name in store.ls(path, detail=False))
        except FileNotFoundError:
            return []

    def has(self, name: str) -> bool:
        """Return whether a file exists."""
        if self._local:
            return os.path.isfile(self._path(name))
        store, path = self._store(name)
        return bool(store.isfile(path))

    def version(self, name: str) -> str:
        """Return a text that changes when the file may have changed.

        Raises:
          LiditError: when there is no such file.
        """
        with self._told(name):
            if self._local:
                return _local_version(os.stat(self._path(name)))
            store, path = self._store(name)
            return _store_version(store.info(path))

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
          LiditError: when it cannot be read.
        """
        with self._told(name):
            if self._local:
                with self._open_local(name) as file:
                    return file.read()
            store, path = self._store(name)
            return store.cat_file(path)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Read a byte range of a file in one request; shorter at the end of the file.

        Raises:
          LiditError: when it cannot be read.
        """
        with self._told(name):
            if self._local:
                path = self._path(name)
                state = os.stat(path)
                return os.pread(
                    _kept_open(path, state.st_dev, state.st_ino).fileno(), length, offset
                )
            store, path = self._store(name)
            return store.cat_file(path, start=offset, end=offset + length)

    def open(self, name: str) -> BinaryIO:
        """Open a file for partial reads; a file of a bucket is downloaded in one request.

        Raises:
          LiditError: when it cannot be read.
        """
        if not self._local:
            return io.BytesIO(self.read(name))
        with self._told(name):
            return self._open_local(name)

    def stream(self, name: str) -> BinaryIO:
        """Open a large file for sequential reading, with limited memory.

        Raises:
          LiditError: when it cannot be opened.
        """
        with self._told(name):
            if self._local:
                return self._open_local(name)
            store, path = self._store(name)
            opened = store.open(path, "rb", block_size=_BLOCK, cache_type="readahead")
            return io.BufferedReader(cast(io.RawIOBase, opened), 2**20)

    def _path(self, name: str) -> str:
        return os.path.join(self.root, name) if name else self.root

    def _open_local(self, name: str) -> BinaryIO:
        path = self._path(name)
        # Opening a pipe would wait for a writer.
        if stat.S_ISREG(os.stat(path).st_mode):
            return open(path, "rb")
        raise LiditError(f"{path} is not a file: replace or remove it")

    def _store(self, name: str) -> tuple[Any, str]:
        """Return the bucket's client, cached per process by fsspec, and the path in the bucket."""
        from fsspec.core import url_to_fs

        _refuse_unknown(self.root)
        store, path = url_to_fs(self.root)
        return store, f"{path}/{name}" if name else path

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Convert exceptions of disks and store clients to one-line errors."""
        try:
            yield
        except LiditError:
            raise
        except FileNotFoundError as error:
            raise LiditError(f"{self.named(name)} does not exist") from error
        # The clients have their own exception types, and a name may be invalid on the disk.
        except Exception as error:
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0][:200]
            raise LiditError(
                f"{self.named(name)!r} cannot be read: replace it, or allow it "
                f"({reason or type(error).__name__})"
            ) from error

    def _list_local(self) -> Listing:
        if not os.path.isdir(self.root):
            raise LiditError(f"{self.root} is not a folder: name one that exists")
        found = Listing()
        seen: set[tuple[int, int]] = set()
        # Links are read last, so that files keep the names that they have without links.
        folders, links = [""], list[str]()
        while folders or links:
            folder = folders.pop() if folders else links.pop()
            path = self._path(folder)
            try:
                state = os.stat(path)
                if (state.st_dev, state.st_ino) in seen:
                    continue
                seen.add((state.st_dev, state.st_ino))
                with os.scandir(path) as scan:
                    entries = [_entry(entry) for entry in scan if not is_litter(entry.name)]
            except OSError as error:
                found.errors.append(f"{path} cannot be read: allow it ({error.strerror})")
                continue
            for entry in sorted(entries):
                name = f"{folder}/{entry.name}" if folder else entry.name
                if stat.S_ISDIR(entry.mode):
                    (links if entry.link else folders).append(name)
                elif not _encodable(name):
                    found.errors.append(f"{name!r} in {self.root} is not UTF-8: rename it")
                elif stat.S_ISREG(entry.mode):
                    found.files[name] = entry.version
                else:
                    found.broken.append(name)
            links.sort(reverse=True)
        return found

    def _list_bucket(self) -> Listing:
        found = Listing()
        with self._told(""):
            store, root = self._store("")
            for path, info in store.find(root, detail=True).items():
                parts = path[len(root) + 1 :].split("/")
                if info["type"] == "file" and all(parts) and not any(map(is_litter, parts)):
                    found.files["/".join(parts)] = _store_version(info)
        if not found.files:
            raise LiditError(f"{self.root} holds no file: name a folder that does")
        return found


class _Entry(NamedTuple):
    name: str
    mode: int
    version: str
    link: bool


def is_litter(name: str) -> bool:
    """Return whether a file or folder is hidden, or left by file managers."""
    return name.startswith(".") or name.lower() in _LITTER


def _entry(entry: os.DirEntry[str]) -> _Entry:
    try:
        state = entry.stat()
    except OSError:  # a broken or circular link
        return _Entry(entry.name, 0, "", True)
    return _Entry(entry.name, state.st_mode, _local_version(state), entry.is_symlink())


def _local_version(state: os.stat_result) -> str:
    return f"{state.st_size}-{state.st_mtime_ns}"


def _refuse_unknown(root: str) -> None:
    """Raise `LiditError` for a path that is not on this machine, in a bucket or on the hub."""
    if not root.startswith("hf://"):
        to_path(root)


def _store_version(info: dict[str, Any]) -> str:
    keys = ("generation", "ETag", "etag", "md5Hash", "blob_id")
    tag = next((info[key] for key in keys if key in info), "")
    return f"{info['size']}-{tag}"


def _encodable(name: str) -> bool:
    try:
        return name.encode() is not None
    except UnicodeEncodeError:
        return False


@functools.lru_cache(_OPEN_FILES)
def _kept_open(path: str, device: int, number: int) -> io.FileIO:
    """Return an open file without a shared position, for threads and forked processes.

    Args:
      path: the file.
      device: with `number`, distinguishes it from a newer file of the same name.
      number: inode number of the file on the device.
    """
    return Path(path).open("rb", buffering=0)
