"""One set of photos in the formats that training reads, for the benchmark of data loading."""

from __future__ import annotations

import os
import tarfile
from functools import partial
from pathlib import Path

from lidit_jax.benchmarks.photos import write_photos
from lidit_jax.data.conversion import convert
from lidit_jax.data.index.build import build_index
from lidit_jax.data.shared_work import share_work
from lidit_jax.data.sources.registry import open_records
from lidit_jax.io.output import atomic_file
from lidit_jax.io.progress import progress_bar

PER_SHARD = 100
"""Photos per tar, Parquet file and ArrayRecord shard."""


def prepare_photos(folder: Path, count: int) -> None:
    """Write `count` photos to `folder`, in every format, unless they are there.

    Args:
      folder: gets the subfolders "folder", "webdataset", "parquet" and "array_record".
      count: number of photos.
    """
    threads = os.cpu_count() or 1
    with progress_bar("writing photos") as progress:
        write_photos(folder / "folder", count, progress, threads)
    photos = sorted((folder / "folder").glob("*.jpg"))
    shards = [photos[start : start + PER_SHARD] for start in range(0, len(photos), PER_SHARD)]
    for number, shard in enumerate(shards):
        _write_tar(folder / "webdataset" / f"{number:05}.tar", shard)
        _write_parquet(folder / "parquet" / f"{number:05}.parquet", shard)
    records, index = folder / "array_record", folder / "index"
    if not (records / "index").exists():
        work = partial(share_work, processes=threads)
        index.mkdir(exist_ok=True)
        build_index(open_records(f"folder:{folder / 'folder'}"), index, work=work)
        with progress_bar("writing ArrayRecord") as progress:
            convert(index, records, work, records_per_shard=PER_SHARD, progress=progress)


def _write_tar(file: Path, photos: list[Path]) -> None:
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as stream, tarfile.open(fileobj=stream, mode="w") as tar:
        for photo in photos:
            tar.add(photo, photo.name)
            tar.add(photo.with_suffix(".txt"), photo.with_suffix(".txt").name)


def _write_parquet(file: Path, photos: list[Path]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": photo.read_bytes(), "path": photo.name} for photo in photos]
    captions = [photo.with_suffix(".txt").read_text(encoding="utf-8") for photo in photos]
    with atomic_file(file) as stream:
        pq.write_table(pa.table({"image": images, "caption": captions}), stream, row_group_size=10)
