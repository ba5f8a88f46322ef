"""Training task of the image autoencoder: loss, validation and reconstructions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lidit_jax.autoencoders.frozen import build_autoencoder, to_uint8
from lidit_jax.autoencoders.latent_model import LatentModel
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.schema import Config
from lidit_jax.data.contents import Contents
from lidit_jax.data.pipeline import ImageRecords
from lidit_jax.data.source_kinds import open_image_source
from lidit_jax.diffusion.dropout import sample_keys
from lidit_jax.training.reconstruction import distance, gradient_distance
from lidit_jax.training.step import Batch, Metrics

_SHOWN = 8


class AutoencoderTask:
    """Autoencoder training with reconstruction, KL and optional gradient loss: see `VAEConfig`."""

    def __init__(self, config: Config):
        self._config = config
        self._model: LatentModel = build_autoencoder(config.vae)
        source = open_image_source(config, "train")
        contents = Contents.of(source)
        self.contents: Contents | None = contents
        self.training_records = ImageRecords(source)
        self.validation_records = ImageRecords(open_image_source(config, "heldout"))
        self.frozen: Any = {}
        self.provenance = Provenance(data=contents.description)
        self.training_flops: float | None = None

    def frozen_shardings(self, mesh: Mesh) -> Any:
        """Return an empty tree: nothing is frozen."""
        del mesh
        return {}

    def encode(self, frozen: Any, batch: Batch) -> Batch:
        """Return the batch unchanged."""
        del frozen
        return batch

    def init(self, key: jax.Array) -> Any:
        """Initialize the parameters."""
        size = self._config.data.image_size
        keys = jax.random.split(key, 1)
        return self._model.init(key, jnp.zeros((1, size, size, 3)), keys)["params"]

    def loss(
        self, params: Any, frozen: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Return the batch mean of distance + weight * KL + weight * distance of the gradients.

        The latents are sampled, keyed by (seed, step, record), so they do not depend on the mesh.
        """
        del frozen
        config, image = self._config.vae, batch["image"]
        keys = sample_keys(key, batch["index"])
        reconstruction, kl = self._model.apply({"params": params}, image, keys)
        error = jnp.mean(distance(reconstruction, image, config.reconstruction))
        metrics = {config.reconstruction: error, "kl": jnp.mean(kl)}
        loss = error + config.kl_weight * metrics["kl"]
        if config.gradient_weight:
            metrics["gradient_l1"] = jnp.mean(gradient_distance(reconstruction, image))
            loss += config.gradient_weight * metrics["gradient_l1"]
        return loss, metrics

    def validation_losses(self, params: Any, frozen: Any, batch: Batch) -> Float[Array, " B"]:
        """Return the L1 error of each deterministic reconstruction, whatever the training loss."""
        del frozen
        return distance(self._reconstruct(params, batch["image"]), batch["image"], "l1")

    def scores(self, params: Any, frozen: Any) -> dict[str, float]:
        """Return no scores: the validation loss is the only measure."""
        del params, frozen
        return {}

    def sample_images(self, params: Any, frozen: Any) -> tuple[np.ndarray, list[str]]:
        """Return held-out images, each followed by its reconstruction."""
        del frozen
        shown = range(min(_SHOWN, len(self.validation_records)))
        images = jnp.stack([self.validation_records[i]["image"] for i in shown])
        decoded = jax.jit(self._reconstruct)(params, images)
        pairs = np.asarray(to_uint8(jnp.clip(jnp.stack([images, decoded], axis=1), -1.0, 1.0)))
        return pairs.reshape(-1, *images.shape[1:]), ["image", "reconstruction"] * len(images)

    def _reconstruct(self, params: Any, image: jax.Array) -> jax.Array:
        latent = self._model.apply({"params": params}, image, method="encode")
        return self._model.apply({"params": params}, latent, method="decode")
