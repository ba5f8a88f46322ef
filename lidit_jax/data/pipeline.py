"""Grain pipeline from data to batches, whose order is a pure function of the seed.

Images may be read by separate processes, see `lidit_jax.data.reader_processes`.
"""

import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import grain.python as grain
import jax
import numpy as np
from jaxtyping import Float, Int32

from lidit_jax.data.caption_tokens import CaptionTokens
from lidit_jax.data.image_source import ImageSource
from lidit_jax.data.read_ahead import read_ahead
from lidit_jax.data.text_features import TextFeatures
from lidit_jax.errors import LiditError


class ImageRecords:
    """Images without captions, in [-1, 1], to train the autoencoder."""

    def __init__(self, source: ImageSource):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return `{"image": float32 [H, W, 3], "index": int32}`."""
        image = self._source[index]["image"].astype(np.float32) / 127.5 - 1.0
        return {"image": image, "index": np.int32(index)}


class LatentRecords:
    """Normalized latents with their captions, encoded or tokenized, to train LI-DiT."""

    def __init__(
        self,
        latents: Float[np.ndarray, "n h w C"],
        mean: Float[np.ndarray, " C"],
        std: Float[np.ndarray, " C"],
        caption_ids: Int32[np.ndarray, " n"] | Sequence[int],
        streams: Sequence[TextFeatures] | Sequence[CaptionTokens],
    ):
        self._latents, self._mean, self._std = latents, mean, std
        self._caption_ids, self._streams = caption_ids, streams

    def __len__(self) -> int:
        return len(self._caption_ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return `{"latent": float32 [h, w, C], "features": K of [S_k, D_k], "masks", "index"}`.

        Tokenized captions have "ids" instead of "features": K of int32 [S_k].
        """
        latent = (self._latents[index].astype(np.float32) - self._mean) / self._std
        caption = int(self._caption_ids[index])
        pairs = [stream[caption] for stream in self._streams]
        return {
            "latent": latent.astype(np.float32),
            self._streams[0].name: tuple(values for values, _ in pairs),
            "masks": tuple(mask for _, mask in pairs),
            "index": np.int32(index),
        }


class PictureRecords:
    """Images with their captions, encoded or tokenized, for latents computed on the device.

    A batch is read in two parts: the images, by threads or processes that need only the source;
    then their captions, by the training process, which has them in memory.
    """

    def __init__(
        self,
        source: ImageSource,
        caption_ids: Int32[np.ndarray, " n"],
        streams: Sequence[TextFeatures] | Sequence[CaptionTokens],
    ):
        self.pictures = Pictures(source)
        self._caption_ids, self._streams = caption_ids, streams

    def __len__(self) -> int:
        return len(self._caption_ids)

    def with_captions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return a batch of `pictures`, with K of [B, S_k, D_k] "features" or of [B, S_k] "ids",
        and "masks"."""
        captions = self._caption_ids[batch["index"]]
        pairs = [stream.take(captions) for stream in self._streams]
        return batch | {
            self._streams[0].name: tuple(values for values, _ in pairs),
            "masks": tuple(mask for _, mask in pairs),
        }


class Pictures:
    """Images without captions, as bytes."""

    def __init__(self, source: ImageSource):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return `{"image": uint8 [H, W, 3], "index": int32}`."""
        return {"image": self._source[index]["image"], "index": np.int32(index)}


class _Named:
    """Records whose errors state the record, as tracebacks of another process do not."""

    def __init__(self, records: Any):
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Any:
        try:
            return self._records[index]
        except LiditError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            raise LiditError(
                f"record {index} of the training data cannot be read ({type(error).__name__}: "
                f"{text}): mend it, or leave it out"
            ) from error


def training_batches(
    records: Any,
    batch_size: int,
    seed: int,
    position: int,
    workers: int = 0,
    threads: int = 2,
    shard: tuple[int, int] | None = None,
) -> Generator[dict[str, Any]]:
    """Yield endless shuffled batches of this process, from batch number `position`.

    Each epoch has its own order. Batch `n` holds the same records for any number of processes and
    any interruptions of the run, so `position` is the complete state of the pipeline.

    Reading starts with the first request, and stops when the generator is closed.

    Args:
      records: random access to dictionaries of arrays, or `PictureRecords`.
      batch_size: global batch size, over all processes.
      seed: seed of the order.
      position: number of batches already consumed.
      workers: number of processes that read whole batches in turn; 0 for threads.
      threads: number of prefetching threads, without processes.
      shard: index of a process, and number of processes; None for this one.

    Raises:
      LiditError: when a record cannot be read, or a process that reads was ended.
    """
    process, processes = shard or (jax.process_index(), jax.process_count())
    streamed = isinstance(records, PictureRecords)
    readable = _Named(records.pictures if streamed else records)
    dataset = grain.MapDataset.source(readable).seed(seed).shuffle().repeat(None)
    # Process p takes records p, p + P, …: together they hold the same records for any P.
    dataset = dataset[process::processes]
    dataset = dataset.batch(batch_size // processes, drop_remainder=True)
    dataset = dataset[position:]
    with contextlib.closing(read_ahead(dataset, workers, threads)) as batches:
        for batch in batches:
            yield records.with_captions(batch) if streamed else batch


def evaluation_batches(records: Any, batch_size: int) -> Iterator[dict[str, Any]]:
    """Yield all records once, in order, in full batches; `valid` is False for padding.

    Args:
      records: random access to dictionaries of arrays.
      batch_size: global batch size, over all processes.
    """
    processes, count = jax.process_count(), len(records)
    padded = -(-count // batch_size) * batch_size
    dataset = grain.MapDataset.range(padded)[jax.process_index() :: processes]
    dataset = dataset.map(lambda i: records[i % count] | {"valid": np.bool_(i < count)})
    return iter(dataset.batch(batch_size // processes).to_iter_dataset())
