"""What the loop needs to train the image autoencoder."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lidit_jax.config import Config
from lidit_jax.data.pipeline import ImageRecords
from lidit_jax.data.sources import open_source
from lidit_jax.models.image_codec import to_uint8
from lidit_jax.models.vae import Autoencoder
from lidit_jax.training.step import Batch, Metrics

_SHOWN = 8


class AutoencoderTask:
    """L1 reconstruction plus a small KL: see `lidit_jax.models.vae`."""

    def __init__(self, config: Config):
        self._config = config
        self._model = Autoencoder(config.vae)
        self.training_records = ImageRecords(open_source(config, "train"))
        self.validation_records = ImageRecords(open_source(config, "heldout"))
        self.frozen: Any = {}
        self.metadata: dict[str, Any] = {}

    def init(self, key: jax.Array) -> Any:
        """Fresh parameters."""
        size = self._config.data.image_size
        return self._model.init(key, jnp.zeros((1, size, size, 3)), key)["params"]

    def loss(
        self, params: Any, frozen: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Mean over the batch of |reconstruction - image| + weight * KL."""
        del frozen
        reconstruction, kl = self._model.apply({"params": params}, batch["image"], key)
        error = jnp.mean(jnp.abs(reconstruction - batch["image"]))
        kl = jnp.mean(kl)
        return error + self._config.vae.kl_weight * kl, {"l1": error, "kl": kl}

    def validation_losses(self, params: Any, frozen: Any, batch: Batch) -> Float[Array, " B"]:
        """L1 of each deterministic reconstruction."""
        del frozen
        error = jnp.abs(self._reconstruct(params, batch["image"]) - batch["image"])
        return jnp.mean(error, axis=(1, 2, 3))

    def sample_images(self, params: Any, frozen: Any) -> tuple[np.ndarray, list[str]]:
        """Held-out images, each followed by its reconstruction."""
        del frozen
        shown = range(min(_SHOWN, len(self.validation_records)))
        images = jnp.stack([self.validation_records[i]["image"] for i in shown])
        decoded = jax.jit(self._reconstruct)(params, images)
        pairs = np.asarray(to_uint8(jnp.clip(jnp.stack([images, decoded], axis=1), -1.0, 1.0)))
        return pairs.reshape(-1, *images.shape[1:]), ["image", "reconstruction"] * len(images)

    def _reconstruct(self, params: Any, image: jax.Array) -> jax.Array:
        latent = self._model.apply({"params": params}, image, method="encode")
        return self._model.apply({"params": params}, latent, method="decode")
