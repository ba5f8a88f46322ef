"""Content-addressed disk cache of computed arrays, atomic and resumable.

A folder is filled as `KEY.partial` in chunks, each recorded in `progress.json` once it is on disk,
and renamed to `KEY` at the end. A folder `KEY` is therefore complete; an existing `KEY.partial` is
resumed, after waiting for any process that is filling it.

Training maps these arrays into memory, so they are on local disk. If the cache is a bucket, `KEY`
is downloaded, or filled here and then uploaded for the other hosts and later runs; its last object,
`complete.json`, marks it complete.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lidit_jax.data.cache.folders import alone, writable_cache_folder
from lidit_jax.errors import LiditError
from lidit_jax.io.bucket_sync import upload_folder
from lidit_jax.io.output import writable_folder
from lidit_jax.io.paths import cache_dir, in_bucket

_COMPLETE = "complete.json"


def fill(
    folder: Path,
    description: dict[str, Any],
    arrays: dict[str, tuple[tuple[int, ...], np.dtype]],
    total: int,
    chunk: int,
    write: Callable[[Mapping[str, np.ndarray], int, int], None],
    progress: Callable[[int, int], None],
) -> Path:
    """Fill `folder` with arrays on disk, chunk by chunk, unless it is complete.

    Args:
      folder: of the data; its parent is created. It may lie in a bucket.
      description: written beside the data for readers.
      arrays: name -> (shape, type) of each `NAME.npy`.
      total: items to compute.
      chunk: items between two records of progress.
      write: `write(arrays, start, stop)` computes those items into the memory-mapped arrays.
      progress: called with (items done, total) at the start and after each chunk.

    Returns:
      The local folder that holds the data.

    Raises:
      LiditError: when the folder cannot be written.
    """
    if in_bucket(folder):
        with writable_folder(folder.parent, "config.data.cache_dir"):
            local = cache_dir() / "data" / folder.name
            if not local.is_dir() and (folder / _COMPLETE).exists():
                _download(folder, local)
            fill(local, description, arrays, total, chunk, write, progress)
            if not (folder / _COMPLETE).exists():
                _upload(local, folder)
        return local
    if folder.is_dir():
        progress(total, total)
        return folder
    partial = folder.with_name(f"{folder.name}.partial")
    with writable_cache_folder(folder.parent), alone(folder):
        if not folder.is_dir():
            partial.mkdir(exist_ok=True)
            (partial / "description.json").write_text(json.dumps(description, indent=2))
            _fill_partial(partial, arrays, total, chunk, write, progress)
            os.replace(partial, folder)
    return folder


def _download(folder: Path, local: Path) -> None:
    """Download complete data; the local folder appears once all of it has arrived."""
    local.parent.mkdir(parents=True, exist_ok=True)
    with alone(local):
        if local.is_dir():
            return
        partial = local.with_name(f"{local.name}.download")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for name, size in json.loads((folder / _COMPLETE).read_bytes()).items():
            with (folder / name).open("rb") as source, (partial / name).open("wb") as sink:
                shutil.copyfileobj(source, sink)
            if (partial / name).stat().st_size != size:
                raise LiditError(
                    f"{folder / name} is not complete: delete {folder} and start again"
                )
        os.replace(partial, local)


def _upload(local: Path, folder: Path) -> None:
    """Upload complete data to the bucket; hosts that do so concurrently write the same data."""
    upload_folder(local, folder)
    sizes = {file.name: file.stat().st_size for file in local.iterdir()}
    (folder / _COMPLETE).write_bytes(json.dumps(sizes).encode())


def _fill_partial(
    partial: Path,
    arrays: dict[str, tuple[tuple[int, ...], np.dtype]],
    total: int,
    chunk: int,
    write: Callable[[Mapping[str, np.ndarray], int, int], None],
    progress: Callable[[int, int], None],
) -> None:
    state = partial / "progress.json"
    done = json.loads(state.read_text())["done"] if state.is_file() else 0
    mode = "r+" if done else "w+"
    mapped = {
        name: np.lib.format.open_memmap(partial / f"{name}.npy", mode, dtype, shape)
        for name, (shape, dtype) in arrays.items()
    }
    progress(done, total)
    while done < total:
        stop = min(done + chunk, total)
        write(mapped, done, stop)
        for array in mapped.values():
            array.flush()
        done = stop
        temporary = state.with_suffix(".tmp")
        temporary.write_text(json.dumps({"done": done}))
        os.replace(temporary, state)
        progress(done, total)
