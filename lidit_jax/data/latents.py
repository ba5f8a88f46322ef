"""Cached latents of all images, computed once with a frozen autoencoder."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from lidit_jax.autoencoders.frozen import FrozenAutoencoder
from lidit_jax.data.cache import content_key, fill
from lidit_jax.data.image_source import ImageSource

_CHUNK = 1024
_BATCH = 64


def prepare_latents(
    source: ImageSource,
    autoencoder: FrozenAutoencoder,
    folder: Path,
    progress: Callable[[int, int], None],
) -> Float[np.ndarray, "n h w C"]:
    """Encode the images of a source, or find their latents cached under `folder`.

    Args:
      source: images and captions.
      autoencoder: the frozen autoencoder.
      folder: parent of all cached data.
      progress: called with (images done, all images).

    Returns:
      Latents of the autoencoder without normalization, float16, mapped from disk.
    """
    latent_shape = autoencoder.encode_images(source[0]["image"][None]).shape[1:]
    description = {"source": repr(source), "autoencoder": autoencoder.fingerprint}
    target = folder / content_key("latents", description)

    def write(arrays: Mapping[str, np.ndarray], start: int, stop: int) -> None:
        for first in range(start, stop, _BATCH):
            last = min(first + _BATCH, stop)
            images = np.stack([source[i]["image"] for i in range(first, last)])
            padded = np.resize(images, (_BATCH, *images.shape[1:]))
            arrays["latents"][first:last] = autoencoder.encode_images(padded)[: last - first]

    total = len(source)
    arrays = {"latents": ((total, *latent_shape), np.dtype(np.float16))}
    target = fill(target, description, arrays, total, _CHUNK, write, progress)
    return np.load(target / "latents.npy", mmap_mode="r")
