"""Benchmark of data loading: JPEGs to batches of square images, on the same files and cores.

Every candidate decodes photos of 1 to 24 megapixels at a fraction of their size where JPEG allows
it, as `lidit_jax.io.images` does, and scales the central square, in random order, without end.
"""

from __future__ import annotations

import functools
import io
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from lidit_jax.benchmarks.workload import Builder, Settings, Workload

_AHEAD = 2
"""Batches that each worker of a peer reads ahead."""
_PER_WORKER = 4
"""Batches per worker in one iteration, so that bursts of the workers average out."""
_READ_AHEAD = 10
"""Batches per worker that are read before each turn: more than any candidate reads ahead."""


def decode_square(file: Path | BinaryIO, side: int) -> UInt8[np.ndarray, "H W 3"]:
    """Decode an image with Pillow alone: JPEGs at the smallest scale that leaves twice the side.

    Args:
      file: a path, or the file's content from its beginning.
      side: of the square, in pixels.
    """
    with Image.open(file) as image:
        image.draft("RGB", (2 * side, 2 * side))
        return np.asarray(
            ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
        )


def _ours(settings: Settings, *, source: str) -> Workload:
    """Build our reader on a source in this format."""
    from lidit_jax.config.load import load_recipe
    from lidit_jax.data.batches import BatchReader, batches
    from lidit_jax.data.opened_data import open_data
    from lidit_jax.data.skipped_records import SkippedRecords

    overrides = (
        f"data.source={source}",
        f"data.path={str(_folder(settings, source))!r}",
        f"data.image_size={settings.image_size}",
        "data.buckets.shapes=1",
        f"training.batch_size={settings.batch}",
    )
    config = load_recipe("lidit_1b:unfiltered", overrides)
    data = open_data(config, step=16)
    reader = BatchReader(
        data.sources,
        data.order,
        data.shapes,
        config.seed,
        config.data.reading,
        config.data.augmentation,
    )
    skipped = SkippedRecords(Path(tempfile.mkdtemp()) / "skipped.jsonl", len(data.order), 0.0)
    found = batches(reader, 0, skipped, settings.workers)
    return _workload(settings, lambda: next(found).image)


def _pillow(settings: Settings) -> Workload:
    """Build bare decoding of the folder's files by threads: the limit for everything else."""
    found = _in_threads(settings, _endless(_photos(settings), settings.batch))
    return _workload(settings, lambda: next(found))


def _workload(settings: Settings, read: Callable[[], np.ndarray | None]) -> Workload:
    """Return the workload of a function that reads one batch."""
    count = settings.workers * _PER_WORKER

    def settle() -> None:
        for _ in range(settings.workers * _READ_AHEAD):
            read()

    def run() -> np.ndarray | None:
        image = None
        for _ in range(count):
            image = read()
        return image

    return Workload(run, settings.batch * count, settle=settle)


def _in_threads(settings: Settings, groups: Iterator[list[Path]]) -> Iterator[np.ndarray]:
    """Yield batches, each decoded by one of the worker threads."""

    def read(files: list[Path]) -> np.ndarray:
        return np.stack([decode_square(file, settings.image_size) for file in files])

    workers = max(settings.workers, 1)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[np.ndarray]] = deque()
        while True:
            while len(waiting) < workers * _AHEAD:
                waiting.append(pool.submit(read, next(groups)))
            yield waiting.popleft().result()


def _endless(files: Sequence[Path], batch: int) -> Iterator[list[Path]]:
    """Yield batches of shuffled files, pass after pass."""
    random, rest = np.random.default_rng(0), list[Path]()
    while True:
        while len(rest) < batch:
            rest += [files[i] for i in random.permutation(len(files))]
        yield rest[:batch]
        del rest[:batch]


def _photos(settings: Settings) -> list[Path]:
    return sorted(_folder(settings, "folder").glob("*.jpg"))


def _folder(settings: Settings, source: str) -> Path:
    return Path(settings.photos) / source


def _collate(images: list[np.ndarray]) -> Any:
    import torch

    return torch.from_numpy(np.stack(images))


def _loader(settings: Settings, dataset: Any, **options: Any) -> Workload:
    """Build PyTorch's DataLoader over a data set of decoded images."""
    import torch
    from torch.utils.data import DataLoader

    loader = DataLoader(
        dataset,
        settings.batch,
        num_workers=settings.workers,
        prefetch_factor=_AHEAD,
        collate_fn=_collate,
        drop_last=True,
        persistent_workers=True,
        worker_init_fn=lambda _: torch.set_num_threads(1),
        **options,
    )

    def endless() -> Iterator[Any]:
        while True:
            yield from loader

    found = endless()
    return _workload(settings, lambda: next(found).numpy())


class _Mapped:
    """Map-style data set of PyTorch: `count` items by a function of the number."""

    def __init__(self, count: int, read: Callable[[int], np.ndarray]):
        self._count, self._read = count, read

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> np.ndarray:
        return self._read(index)


def _torch_folder(settings: Settings) -> Workload:
    files, side = _photos(settings), settings.image_size
    dataset = _Mapped(len(files), lambda i: decode_square(files[i], side))
    return _loader(settings, dataset, shuffle=True)


def _torch_webdataset(settings: Settings) -> Workload:
    from webdataset.compat import WebDataset

    urls = sorted(map(str, _folder(settings, "webdataset").glob("*.tar")))
    decode = functools.partial(decode_square, side=settings.image_size)
    dataset = WebDataset(urls, resampled=True, shardshuffle=False)
    images = dataset.shuffle(100).to_tuple("jpg").map(lambda row: decode(io.BytesIO(row[0])))
    return _loader(settings, images)


def _torch_hf_datasets(settings: Settings) -> Workload:
    import datasets

    files = sorted(map(str, _folder(settings, "parquet").glob("*.parquet")))
    table = datasets.load_dataset("parquet", data_files=files, split="train")
    table = table.cast_column("image", datasets.Image(decode=False))
    decode = functools.partial(decode_square, side=settings.image_size)
    dataset = _Mapped(len(table), lambda i: decode(io.BytesIO(table[i]["image"]["bytes"])))
    return _loader(settings, dataset, shuffle=True)


CANDIDATES: dict[str, Builder] = {
    "lidit-jax, ArrayRecord": functools.partial(_ours, source="array_record"),
    "lidit-jax, folder": functools.partial(_ours, source="folder"),
    "lidit-jax, WebDataset": functools.partial(_ours, source="webdataset"),
    "lidit-jax, Parquet": functools.partial(_ours, source="parquet"),
    "Pillow alone, threads": _pillow,
    "PyTorch, folder": _torch_folder,
    "PyTorch, WebDataset": _torch_webdataset,
    "PyTorch, HF datasets": _torch_hf_datasets,
}
