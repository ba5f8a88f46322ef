"""Training data that is read from its sources or caches while it is used."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import grain.python as grain
import jax
import ml_dtypes
import numpy as np
from jaxtyping import Bool, Float, Float16

from lidit_jax.config.data_settings import AugmentationSettings
from lidit_jax.config.schema import Config
from lidit_jax.data.batches import Batch, BatchReader, RecordOrder, batches
from lidit_jax.data.cache.latent_cache import LatentCache
from lidit_jax.data.cache.text_cache import TextCache
from lidit_jax.data.caption_tokenizer import CaptionTokenizer
from lidit_jax.data.latent_statistics import LatentStatistics
from lidit_jax.data.opened_data import OpenedData
from lidit_jax.data.skipped_records import SkippedRecords
from lidit_jax.data.training_data import HostBatch
from lidit_jax.models.flops import TextStream
from lidit_jax.parallel.distributed import print_on_main

_THREADS = 2
_AHEAD = 4
"""Validation batches prefetched."""
_INDICES = 2**31
"""Number of values of a batch's "index"."""


class StreamedData:
    """Batches of opened data: images or cached latents, and captions or cached features."""

    def __init__(
        self,
        config: Config,
        opened: OpenedData,
        *,
        latents: LatentCache | None = None,
        statistics: LatentStatistics | None = None,
        text: TextCache | CaptionTokenizer | None = None,
        validation_times: int = 1,
    ):
        """Combine what a run reads.

        Args:
          config: of the run.
          opened: its sources.
          latents: cached latents; None to read images.
          statistics: mean and standard deviation that normalize them.
          text: cached features, or the tokenizer of captions; None for images alone.
          validation_times: rows of each held-out record.
        """
        self._config, self._opened = config, opened
        self._latents, self._statistics, self._text = latents, statistics, text
        self._held_out = dataclasses.replace(opened.held_out, times=validation_times)
        self.shapes, self.order, self.contents = opened.shapes, opened.order, opened.contents
        self._skipped: SkippedRecords | None = None

    def __len__(self) -> int:
        return self.contents.records

    @property
    def streams(self) -> tuple[TextStream, ...]:
        """Sizes of each encoder's features, with the padding of the captions."""
        if isinstance(self._text, TextCache):
            cached = self._text.streams
            return tuple(TextStream(s.width, s.length, s.prefix_length, s.layers) for s in cached)
        return self._text.streams if self._text else ()

    @property
    def counts(self) -> dict[str, float]:
        """Records that this process has replaced or repaired, and captions that it has cut, so
        far."""
        found: dict[str, float] = {}
        if self._skipped is not None:
            found["skipped_records"] = len(self._skipped)
            found["repaired_records"] = self._skipped.repaired
        if isinstance(self._text, CaptionTokenizer):
            found["cut_captions"] = self._text.truncated
        return {name: count for name, count in found.items() if count}

    @property
    def validation_rows(self) -> int:
        """Rows of a validation, without padding."""
        return len(self._held_out)

    @property
    def validation_buckets(self) -> tuple[int, ...]:
        """Buckets of the held-out records."""
        return self._held_out.shapes

    def batches(self, position: int, workdir: Path) -> Generator[HostBatch]:
        """Yield this process's part of endless training batches, prefetched.

        Records that cannot be read, or whose image was repaired, are listed in
        `data/skipped_records_P.jsonl` of the workdir, P the process.
        """
        process, processes = jax.process_index(), jax.process_count()
        data, rows = self._config.data, self._config.training.batch_size // processes
        file = workdir / "data" / f"skipped_records_{process}.jsonl"
        self._skipped = SkippedRecords(
            file,
            len(self),
            data.reading.skipped_fraction,
            read=position * rows,
        )
        told = len(self._skipped) + self._skipped.repaired > 0
        reader = self._reader(self.order, data.augmentation, (process, processes))
        with closing(batches(reader, position, self._skipped, data.workers)) as found:
            for batch in found:
                if batch.skipped and not told:
                    told = True
                    print(
                        f"{batch.skipped[0].outcome}; all such records are listed in {file}",
                        flush=True,
                    )
                records = (batch.records % _INDICES).astype(np.int32)
                arrays: dict[str, Any] = self._arrays(batch) | {"index": records}
                if batch.number == position and "masks" in arrays:
                    print_on_main([_padding(arrays["masks"])])
                yield HostBatch(batch.bucket, batch.records, arrays)

    def validation(self, batch_size: int, share: tuple[int, int]) -> Iterator[HostBatch]:
        """Yield all held-out rows once, in full batches of one shape each.

        Their "index" is the number of the row in the whole validation.
        """
        held_out = dataclasses.replace(self._held_out, batch_size=batch_size)
        reader = self._reader(held_out, AugmentationSettings(), share)
        numbers = grain.MapDataset.range(held_out.batches)
        options = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_AHEAD)
        for batch in numbers.map(reader.read).to_iter_dataset(options):
            if self._skipped is not None:
                self._skipped.add(batch.skipped, 0)
            rows = held_out.rows(batch.number, *share)
            arrays = self._arrays(batch) | {
                "index": rows.positions.astype(np.int32),
                "valid": rows.valid,
            }
            yield HostBatch(batch.bucket, batch.records, arrays)

    def example(self, bucket: int, rows: int) -> dict[str, Any]:
        """Return the `jax.ShapeDtypeStruct`s of a training batch."""
        example: dict[str, Any] = {"index": jax.ShapeDtypeStruct((rows,), np.int32)}
        if self._latents is None:
            shape = rows, *self.shapes[bucket], 3
            example["image"] = jax.ShapeDtypeStruct(shape, np.uint8)
        else:
            shape = rows, *self._latents.shapes[bucket]
            example["latent"] = jax.ShapeDtypeStruct(shape, np.float32)
        if isinstance(self._text, CaptionTokenizer):
            example |= self._text.example(rows)
        elif self._text:
            shapes = [(rows, stream.tokens) for stream in self.streams]
            example["masks"] = tuple(jax.ShapeDtypeStruct(shape, bool) for shape in shapes)
            example["features"] = tuple(
                jax.ShapeDtypeStruct((*shape, *stream.token_shape), ml_dtypes.bfloat16)
                for shape, stream in zip(shapes, self.streams, strict=True)
            )
        return example

    def _reader(
        self, order: RecordOrder, augmentation: AugmentationSettings, share: tuple[int, int]
    ) -> BatchReader:
        return BatchReader(
            self._opened.sources,
            order,
            self.shapes,
            self._config.seed,
            self._config.data.reading,
            augmentation,
            share,
            latents=self._latents,
            text=self._text if isinstance(self._text, TextCache) else None,
        )

    def _arrays(self, batch: Batch) -> dict[str, Any]:
        """Return the arrays of a batch, without those of its row numbers."""
        arrays: dict[str, Any] = {}
        if batch.latent is None:
            arrays["image"] = batch.image
        else:
            arrays["latent"] = self._normalized(batch.latent)
        if isinstance(self._text, CaptionTokenizer):
            assert batch.captions is not None  # whoever has a tokenizer has no features
            arrays |= self._text(batch.captions)
        elif self._text:
            arrays |= {"features": batch.features, "masks": batch.masks}
        return arrays

    def _normalized(self, latent: Float16[np.ndarray, "b h w C"]) -> Float[np.ndarray, "b h w C"]:
        assert self._statistics is not None  # whoever has cached latents has them
        mean, std = self._statistics
        return ((latent.astype(np.float32) - mean) / std).astype(np.float32)


def _padding(masks: Sequence[Bool[np.ndarray, "_b _S"]]) -> str:
    """Describe how much of the captions in a batch is padding."""
    rows = [f"{1 - mask.mean():.0%} of {mask.shape[1]}" for mask in masks]
    return f"padding of the captions' tokens in the first batch, by encoder: {', '.join(rows)}"
