"""Training task of the image autoencoder: loss, validation and reconstructions."""

import math
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
from lidit_jax.data.opened_data import open_data
from lidit_jax.data.streamed_data import StreamedData
from lidit_jax.data.training_data import TrainingData
from lidit_jax.diffusion.dropout import sample_keys
from lidit_jax.parallel.distributed import print_on_main
from lidit_jax.training.reconstruction import GRADIENT_STEP, distance, gradient_distance
from lidit_jax.training.step import Batch, Metrics

_SHOWN = 8


def open_images(config: Config) -> TrainingData:
    """Open the images of a run; their captions are not used.

    Raises:
      LiditError: when a source cannot be opened, or its images do not fit.
    """
    step = config.vae.downsample
    if config.vae.gradient_weight:
        step = math.lcm(step, GRADIENT_STEP)
    opened = open_data(config, step)
    print_on_main(opened.report)
    return StreamedData(config, opened)


class AutoencoderTask:
    """Autoencoder training with reconstruction, KL and optional gradient loss: see `VAEConfig`."""

    def __init__(self, config: Config, data: TrainingData):
        """Combine a configuration with its data, batches of images without captions."""
        self._config = config
        self._model: LatentModel = build_autoencoder(config.vae)
        self.data: TrainingData = data
        self.frozen: Any = {}
        contents = data.contents
        self.provenance = Provenance(data=contents.description if contents else None)
        self.training_flops: float | None = None

    def frozen_shardings(self, mesh: Mesh) -> Any:
        """Return an empty tree: nothing is frozen."""
        del mesh
        return {}

    def encode(self, frozen: Any, batch: Batch) -> Batch:
        """Return the batch with images as float32 in [-1, 1]."""
        del frozen
        return batch | {"image": batch["image"].astype(jnp.float32) / 127.5 - 1.0}

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
        """Return held-out images of one shape, each followed by its reconstruction."""
        del frozen
        first = next(self.data.validation(_SHOWN, (0, 1))).arrays
        images = self.encode({}, {"image": jnp.asarray(first["image"][first["valid"]])})["image"]
        decoded = jax.jit(self._reconstruct)(params, images)
        pairs = np.asarray(to_uint8(jnp.clip(jnp.stack([images, decoded], axis=1), -1.0, 1.0)))
        return pairs.reshape(-1, *images.shape[1:]), ["image", "reconstruction"] * len(images)

    def _reconstruct(self, params: Any, image: jax.Array) -> jax.Array:
        latent = self._model.apply({"params": params}, image, method="encode")
        return self._model.apply({"params": params}, latent, method="decode")
