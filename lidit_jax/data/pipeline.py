"""From prepared data to batches: a Grain pipeline whose order is a pure function of the seed."""

from collections.abc import Iterator, Sequence
from typing import Any

import grain.python as grain
import jax
import numpy as np
from jaxtyping import Float

from lidit_jax.data.caption_tokens import CaptionTokens
from lidit_jax.data.source import ImageSource
from lidit_jax.data.text_features import TextFeatures


class ImageRecords:
    """Images alone, in [-1, 1]: what the autoencoder trains on."""

    def __init__(self, source: ImageSource):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`{"image": float32 [H, W, 3], "index": int32}`."""
        image = self._source[index]["image"].astype(np.float32) / 127.5 - 1.0
        return {"image": image, "index": np.int32(index)}


class LatentRecords:
    """Normalised latents with their captions, encoded or tokenised: what LI-DiT trains on."""

    def __init__(
        self,
        latents: Float[np.ndarray, "n h w C"],
        mean: Float[np.ndarray, " C"],
        deviation: Float[np.ndarray, " C"],
        caption_ids: Sequence[int],
        streams: Sequence[TextFeatures] | Sequence[CaptionTokens],
    ):
        self._latents, self._mean, self._deviation = latents, mean, deviation
        self._caption_ids, self._streams = caption_ids, streams

    def __len__(self) -> int:
        return len(self._caption_ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`{"latent": float32 [h, w, C], "features": K of [S_k, D_k], "masks", "index"}`.

        Tokenised captions have "ids" in the place of "features": K of int32 [S_k].
        """
        latent = (self._latents[index].astype(np.float32) - self._mean) / self._deviation
        pairs = [stream[self._caption_ids[index]] for stream in self._streams]
        return {
            "latent": latent.astype(np.float32),
            self._streams[0].name: tuple(values for values, _ in pairs),
            "masks": tuple(mask for _, mask in pairs),
            "index": np.int32(index),
        }


def training_batches(
    records: Any,
    batch_size: int,
    seed: int,
    position: int,
    threads: int = 2,
    share: tuple[int, int] | None = None,
) -> Iterator[dict[str, Any]]:
    """Endless shuffled batches of this process, beginning with batch number `position`.

    Each epoch has its own order. Batch `n` holds the same records however many processes share it
    and wherever the run was interrupted, so `position` is the whole state of the pipeline.

    Args:
      records: random access to dictionaries of arrays.
      batch_size: of all processes together.
      seed: decides the order.
      position: batches already consumed.
      threads: readers that prefetch.
      share: number of a process, and how many there are; None for this one.
    """
    process, processes = share or (jax.process_index(), jax.process_count())
    dataset = grain.MapDataset.source(records).seed(seed).shuffle().repeat(None)
    # Process p takes records p, p + P, …: together they hold the same records at any P.
    dataset = dataset[process::processes]
    dataset = dataset.batch(batch_size // processes, drop_remainder=True)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=8)
    iterator = iter(dataset.to_iter_dataset(options))
    iterator.set_state({"next_index": position})
    return iterator


def evaluation_batches(records: Any, batch_size: int) -> Iterator[dict[str, Any]]:
    """All records once, in order, in whole batches; `valid` is False where the last is filled up.

    Args:
      records: random access to dictionaries of arrays.
      batch_size: of all processes together.
    """
    processes, count = jax.process_count(), len(records)
    padded = -(-count // batch_size) * batch_size
    dataset = grain.MapDataset.range(padded)[jax.process_index() :: processes]
    dataset = dataset.map(lambda i: records[i % count] | {"valid": np.bool_(i < count)})
    return iter(dataset.batch(batch_size // processes).to_iter_dataset())
