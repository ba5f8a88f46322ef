"""Text-to-image task on random data, with the real network and loss and no cached data."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lidit_jax.autoencoders.frozen import FrozenAutoencoder
from lidit_jax.benchmarks.synthetic import empty_prompt, make_batch
from lidit_jax.config.schema import Config
from lidit_jax.data.latent_statistics import LatentStatistics
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
    batch = make_batch(config, streams, records)
    samples = [jax.tree.map(lambda leaf, i=i: leaf[i], batch) for i in range(records)]
    unconditional = TextConditions(**empty_prompt(streams))
    side, _, channels = config.latent_shape
    texts = config.training.prompts or ("made up",)
    return PreparedData(
        training_records=samples,
        validation_records=samples[:1],
        streams=tuple(streams),
        frozen=FrozenModels(unconditional),
        statistics=LatentStatistics(np.zeros(channels), np.ones(channels)),
        autoencoder=FrozenAutoencoder(
            _FirstChannel(channels, config.data.image_size // side), {}, "none"
        ),
        prompts=jax.tree.map(lambda leaf: np.repeat(leaf, len(texts), axis=0), unconditional),
        prompt_texts=texts,
    )


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
