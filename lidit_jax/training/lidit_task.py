"""Training task of LI-DiT: diffusion loss, validation, sample images and scores."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu.metrics import Average
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from lidit_jax.config.schema import Config
from lidit_jax.diffusion import process as processes
from lidit_jax.diffusion.dropout import drop_captions, sample_keys
from lidit_jax.models.abstract_inputs import initialize
from lidit_jax.models.flops import forward_flops
from lidit_jax.models.lidit import LIDiT
from lidit_jax.models.refiner import GATE_MAGNITUDES
from lidit_jax.sampling.guided_sampler import GuidedSampler
from lidit_jax.sampling.image_batch import ImageBatch
from lidit_jax.training.diffusion_loss import diffusion_loss, fixed_draws, random_draws
from lidit_jax.training.prepared_data import FrozenModels, PreparedData
from lidit_jax.training.step import Batch, Metrics, average
from lidit_jax.training.trained_parts import trained_parts
from lidit_jax.weights.parameter_paths import by_path


class LIDiTTask:
    """Training of LI-DiT on latents and text features with the diffusion loss."""

    def __init__(self, config: Config, prepared: PreparedData):
        """Combine a configuration with its data, the result of `prepare`."""
        self._config, self._prepared = config, prepared
        self._process = processes.from_config(config.diffusion)
        self._model = LIDiT(config.model)
        self._training_model = LIDiT(config.model, config.training.quantization)
        self._prefix_lengths = tuple(stream.prefix_length for stream in prepared.streams)
        self.data = prepared.data
        self.frozen = prepared.frozen
        self.provenance = prepared.provenance
        side = config.data.image_size // prepared.autoencoder.downsample
        channels = prepared.autoencoder.channels
        self._latent_shape = side, side, channels
        # Other shapes have up to 5% fewer tokens.
        tokens = (side // config.model.patch) ** 2
        trained = trained_parts(config, prepared.streams, tokens).products
        self.training_flops: float | None = forward_flops(
            config.model, tokens, channels, prepared.streams
        ).training_with(trained)
        self._sampler = GuidedSampler(
            self._model,
            self._process,
            prepared.autoencoder,
            *prepared.statistics,
            self._prefix_lengths,
        )

    def frozen_shardings(self, mesh: Mesh) -> FrozenModels:
        """Return the shardings of the frozen models, see `FrozenModels.shardings`."""
        return self.frozen.shardings(mesh)

    def init(self, key: jax.Array) -> Any:
        """Initialize the parameters."""
        return initialize(self._model, key, self._prepared.streams, self._latent_shape)

    def encode(self, frozen: FrozenModels, batch: Batch) -> Batch:
        """Replace the batch's images by latents and its token ids by features, if it has any; pure.

        Both are rounded like cached ones, to float16 and bfloat16.
        """
        if "image" in batch:
            rest = {name: value for name, value in batch.items() if name != "image"}
            batch = rest | {"latent": self._latent(frozen, batch["image"])}
        if "ids" not in batch:
            return batch
        rest = {name: value for name, value in batch.items() if name != "ids"}
        assert self._prepared.encode is not None  # only this stream has token ids
        features = self._prepared.encode(frozen.encoders, batch["ids"], batch["masks"])
        return rest | {"features": jax.tree.map(lambda f: f.astype(jnp.bfloat16), features)}

    def _latent(
        self, frozen: FrozenModels, image: UInt8[Array, "B H W 3"]
    ) -> Float[Array, "B h w C"]:
        """Return normalized latents, computed as the cache stores them."""
        pixels = image.astype(jnp.float32) / 127.5 - 1.0
        latent = self._prepared.autoencoder.encode(frozen.autoencoder, pixels)
        mean, std = (jnp.asarray(s, jnp.float32) for s in self._prepared.statistics)
        return (latent.astype(jnp.float16).astype(jnp.float32) - mean) / std

    def loss(
        self, params: Any, frozen: FrozenModels, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Return the diffusion loss at one random time per sample, with caption dropout.

        Every draw is keyed by (seed, step, record), so it does not depend on the mesh.
        """
        time_key, noise_key, dropout_key = jax.random.split(key, 3)
        features, masks = drop_captions(
            sample_keys(dropout_key, batch["index"]),
            batch["features"],
            batch["masks"],
            frozen.unconditional.features,
            frozen.unconditional.masks,
            self._config.diffusion.caption_dropout,
        )

        def predict(*inputs: Any) -> tuple[Array, dict[str, Any]]:
            prediction, left = self._training_model.apply(
                {"params": params}, *inputs, self._prefix_lengths, mutable=[GATE_MAGNITUDES]
            )
            return prediction, dict(left)

        batch = batch | {"features": features, "masks": masks}
        draws = random_draws(self._process, batch, time_key, noise_key)
        losses, left = diffusion_loss(predict, self._process, batch, draws)
        by_time = _losses_by_time(losses, self._process.model_time(draws.times))
        return jnp.mean(losses), by_time | _gate_magnitudes(left)

    def validation_losses(
        self, params: Any, frozen: FrozenModels, batch: Batch
    ) -> Float[Array, " B"]:
        """Return each sample's loss at one of eight fixed times with fixed noise, no dropout."""
        del frozen

        def predict(*inputs: Any) -> tuple[Array, None]:
            prediction = self._model.apply({"params": params}, *inputs, self._prefix_lengths)
            assert isinstance(prediction, jax.Array)  # nothing is mutable
            return prediction, None

        draws = fixed_draws(self._process, batch)
        return diffusion_loss(predict, self._process, batch, draws)[0]

    def sample_images(self, params: Any, frozen: FrozenModels) -> tuple[np.ndarray, list[str]]:
        """Generate images of fixed prompts and seeds at the configuration's sampling settings."""
        sampling, size = self._config.sampling, self._config.data.image_size
        prompts = list(self._prepared.prompt_texts)
        batch = ImageBatch(
            conditions=self._prepared.prompts,
            unconditional=frozen.unconditional,
            seeds=range(len(prompts)),
            size=(size, size),
            settings=sampling,
        )
        return self._sampler(params, batch), prompts

    def scores(self, params: Any, frozen: FrozenModels) -> dict[str, float]:
        """Return the scores of `SceneScores`, if the configuration enables them."""
        assert self._prepared.scores is not None
        return self._prepared.scores(self._sampler, params, frozen.unconditional)


def _losses_by_time(
    losses: Float[Array, " B"], model_time: Float[Array, " B"]
) -> dict[str, Average]:
    """Return the mean loss in each quarter of the time range."""
    quarter = jnp.clip(model_time / 250.0, 0, 3).astype(jnp.int32)
    return {
        f"loss_by_time/{q / 4:.2f}-{(q + 1) / 4:.2f}": average(
            jnp.sum(losses, where=quarter == q),
            jnp.sum(quarter == q).astype(jnp.float32),
        )
        for q in range(4)
    }


def _gate_magnitudes(left: dict[str, Any]) -> dict[str, Array]:
    """Return the mean gate magnitude of each refiner block and stream; 0 is an inactive block."""
    blocks = by_path({"gates": left.get(GATE_MAGNITUDES, {})})
    return {path.rpartition("/")[0]: value for path, (value,) in blocks.items()}
