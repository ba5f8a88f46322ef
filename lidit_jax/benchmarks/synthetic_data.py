"""Text-to-image task on random data, with the real network and loss and no cached data."""

import itertools
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lidit_jax.autoencoders.frozen import FrozenAutoencoder
from lidit_jax.benchmarks.synthetic import empty_prompt, make_batch
from lidit_jax.config.schema import Config
from lidit_jax.data.bucket_members import BucketMembers
from lidit_jax.data.latent_statistics import LatentStatistics
from lidit_jax.data.order import Order
from lidit_jax.data.training_data import HostBatch
from lidit_jax.encoders.conditions import TextConditions
from lidit_jax.models.flops import TextStream
from lidit_jax.training.prepared_data import FrozenModels, PreparedData


def synthetic_data(config: Config, streams: Sequence[TextStream], records: int = 1) -> PreparedData:
    """Return synthetic data in place of `prepare`'s, for benchmarks.

    Args:
      config: the run's configuration, for the shape of its latents.
      streams: text streams.
      records: number of samples to train on.
    """
    unconditional = TextConditions(**empty_prompt(streams))
    side, _, channels = config.latent_shape
    texts = config.training.prompts or ("made up",)
    return PreparedData(
        data=SyntheticSamples(config, streams, records),
        streams=tuple(streams),
        frozen=FrozenModels(unconditional),
        statistics=LatentStatistics(np.zeros(channels), np.ones(channels)),
        autoencoder=FrozenAutoencoder(
            _FirstChannel(channels, config.data.image_size // side), {}, "none"
        ),
        prompts=jax.tree.map(lambda leaf: np.repeat(leaf, len(texts), axis=0), unconditional),
        prompt_texts=texts,
    )


class SyntheticSamples:
    """Random samples of one image shape, as training data; the first is held out too."""

    contents = None
    validation_rows = 1
    validation_buckets = (0,)

    def __init__(self, config: Config, streams: Sequence[TextStream], records: int):
        """Draw the samples.

        Args:
          config: the run's configuration.
          streams: text streams.
          records: number of samples.
        """
        self._samples = make_batch(config, streams, records)
        self.shapes = ((config.data.image_size, config.data.image_size),)
        members = BucketMembers(np.zeros(records, np.uint8), 1)
        self.order = Order([members], config.training.batch_size, config.seed)
        self.counts: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self.order)

    def batches(self, position: int, workdir: Path) -> Generator[HostBatch]:
        """Yield endless batches of samples in memory."""
        del workdir
        for number in itertools.count(position):
            drawn = self.order.batch(number, jax.process_index(), jax.process_count())
            yield HostBatch(0, drawn.records, self._rows(drawn.records))

    def validation(self, batch_size: int, share: tuple[int, int]) -> Iterator[HostBatch]:
        """Yield one batch, whose first row is the first sample."""
        process, processes = share
        rows = np.zeros(batch_size // processes, np.int64)
        valid = (np.arange(len(rows)) == 0) & (process == 0)
        yield HostBatch(0, rows, self._rows(rows) | {"valid": valid})

    def example(self, bucket: int, rows: int) -> dict[str, Any]:
        """Return shapes and types of a batch."""
        del bucket
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), self._samples
        )

    def _rows(self, rows: np.ndarray) -> dict[str, Any]:
        return jax.tree.map(lambda leaf: leaf[rows], self._samples)


class _FirstChannel(nn.Module):
    """Placeholder autoencoder that shows the first latent channel at the image's size."""

    channels: int
    downsample: int
    dtype: DTypeLike = jnp.float32

    def encode(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Return the red value of one pixel per block, in all channels."""
        step = self.downsample
        return jnp.repeat(image[:, ::step, ::step, :1], self.channels, axis=-1)

    def decode(self, latent: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Return grayscale images."""
        gray = jnp.repeat(latent[..., :1], 3, axis=-1)
        return jnp.repeat(jnp.repeat(gray, self.downsample, axis=1), self.downsample, axis=2)
