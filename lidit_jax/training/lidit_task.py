"""What the loop needs to train LI-DiT: prepared data, the loss, and images to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu.metrics import Average
from jaxtyping import Array, Float

from lidit_jax.config import Config
from lidit_jax.data.cache import content_key
from lidit_jax.data.latents import ImageSource, channel_statistics, prepare_latents
from lidit_jax.data.pipeline import LatentRecords
from lidit_jax.data.sources import open_source
from lidit_jax.data.text_features import prepare_text_features
from lidit_jax.diffusion import process as processes
from lidit_jax.diffusion.dropout import drop_captions, sample_keys
from lidit_jax.encoders.conditions import PromptEncoders, pad_conditions
from lidit_jax.errors import LiditError
from lidit_jax.generation import Generator
from lidit_jax.models.flops import TextStream, forward_flops
from lidit_jax.models.image_codec import ImageCodec, load_codec
from lidit_jax.models.lidit import LIDiT
from lidit_jax.output import atomic_file
from lidit_jax.parallel.mesh import make_mesh
from lidit_jax.paths import cache_dir
from lidit_jax.progress import progress_bar
from lidit_jax.training.step import Batch, Metrics

_VALIDATION_TIMES = 8


class LIDiTTask:
    """The diffusion loss on prepared latents and text features.

    The encoders and the autoencoder are frozen, so both run once over the data before training;
    the steps read their outputs from disk.
    """

    def __init__(self, config: Config):
        self._config = config
        self._process = processes.from_config(config.diffusion)
        self._model = LIDiT(config.model)
        codec = load_codec(config.vae)
        _check_size(config, codec)
        encoders = PromptEncoders(config.encoders, make_mesh(config.mesh))
        # Before the captions, which may take hours: one of these prompts may be too long.
        self._prompts, _ = encoders.encode(config.training.prompts)
        folder = Path(config.data.cache_dir) if config.data.cache_dir else cache_dir() / "data"

        sources = {split: open_source(config, split) for split in ("train", "heldout")}
        latents = {
            split: _latents(source, codec, folder, split) for split, source in sources.items()
        }
        captions = {split: _captions(source, folder) for split, source in sources.items()}
        unique = sorted({text for texts in captions.values() for text in texts})
        caption_id = {text: i for i, text in enumerate(unique)}
        streams = []
        for stream, layer in zip(encoders.streams, encoders.layers, strict=True):
            with progress_bar(f"encoding captions with {stream.name}") as progress:
                streams.append(
                    prepare_text_features(
                        stream,
                        unique,
                        encoders.prompt_format,
                        layer,
                        encoders.max_prompt_tokens,
                        folder,
                        progress,
                    )
                )
            if cut := streams[-1].truncated:
                print(
                    f"{cut} captions exceed config.encoders.max_prompt_tokens: their ends are cut"
                )
        mean, deviation = channel_statistics(latents["train"])
        self.training_records, self.validation_records = (
            LatentRecords(
                latents[split],
                mean,
                deviation,
                [caption_id[text] for text in captions[split]],
                streams,
            )
            for split in ("train", "heldout")
        )
        self._crop = tuple(stream.crop for stream in streams)
        null, _ = encoders.encode([""])
        self.frozen = pad_conditions(null, [stream.length for stream in streams])
        self.metadata = {
            "encoders": encoders.description,
            "crop": list(self._crop),
            "autoencoder": codec.fingerprint,
            "latents": {"mean": mean.tolist(), "deviation": deviation.tolist()},
        }
        rows, columns, channels = self.training_records[0]["latent"].shape
        self.training_flops = forward_flops(
            config.model,
            rows * columns // config.model.patch**2,
            channels,
            [TextStream(s.tokens.shape[1], s.length, s.crop) for s in streams],
        ).training
        self._generator = Generator(self._model, self._process, codec, mean, deviation, self._crop)

    def init(self, key: jax.Array) -> Any:
        """Fresh parameters."""
        record = self.training_records[0]
        sample = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], record)
        return self._model.init(
            key, sample["latent"], jnp.zeros(1), sample["features"], sample["masks"], self._crop
        )["params"]

    def loss(
        self, params: Any, frozen: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Diffusion loss at one random time a sample, with caption dropout.

        Every draw is keyed by (seed, step, record), so it does not depend on the mesh.
        """
        time_key, noise_key, dropout_key = jax.random.split(key, 3)
        x0, index = batch["latent"], batch["index"]
        draw_time = lambda key: self._process.sample_times(key, ())  # noqa: E731
        t = jax.vmap(draw_time)(sample_keys(time_key, index))
        draw_noise = lambda key: jax.random.normal(key, x0.shape[1:])  # noqa: E731
        noise = jax.vmap(draw_noise)(sample_keys(noise_key, index))
        features, masks = drop_captions(
            sample_keys(dropout_key, index),
            batch["features"],
            batch["masks"],
            frozen.features,
            frozen.masks,
            self._config.diffusion.caption_dropout,
        )
        losses = self._losses(params, x0, noise, t, features, masks)
        return jnp.mean(losses), _losses_by_time(losses, self._process.model_time(t))

    def validation_losses(self, params: Any, frozen: Any, batch: Batch) -> Float[Array, " B"]:
        """The loss of each sample at one of eight fixed times, with fixed noise and no dropout."""
        del frozen
        x0, index = batch["latent"], batch["index"]
        times = jnp.asarray(self._process.times_for_validation(_VALIDATION_TIMES))
        t = times[index % _VALIDATION_TIMES]
        draw_noise = lambda key: jax.random.normal(key, x0.shape[1:])  # noqa: E731
        noise = jax.vmap(draw_noise)(sample_keys(jax.random.key(0), index))
        return self._losses(params, x0, noise, t, batch["features"], batch["masks"])

    def sample_images(self, params: Any, frozen: Any) -> tuple[np.ndarray, list[str]]:
        """The fixed prompts, at the configuration's sampling settings and fixed seeds."""
        sampling, size = self._config.sampling, self._config.data.image_size
        prompts = list(self._config.training.prompts)
        images = self._generator(
            params,
            self._prompts,
            frozen,
            seeds=range(len(prompts)),
            size=(size, size),
            settings=sampling,
        )
        return images, prompts

    def _losses(
        self, params: Any, x0: Any, noise: Any, t: Any, features: Any, masks: Any
    ) -> Float[Array, " B"]:
        process = self._process
        prediction = self._model.apply(
            {"params": params},
            process.add_noise(x0, noise, t),
            process.model_time(t),
            features,
            masks,
            self._crop,
        )
        return process.loss(prediction, x0, noise, t)


def _losses_by_time(
    losses: Float[Array, " B"], model_time: Float[Array, " B"]
) -> dict[str, Average]:
    """The loss in each quarter of time; a mean over all of it hides which one learns."""
    quarter = jnp.clip(model_time / 250.0, 0, 3).astype(jnp.int32)
    return {
        f"loss_by_time/{q / 4:.2f}-{(q + 1) / 4:.2f}": Average(
            total=jnp.sum(losses, where=quarter == q),
            count=jnp.sum(quarter == q).astype(jnp.float32),
        )
        for q in range(4)
    }


def _check_size(config: Config, codec: ImageCodec) -> None:
    size, unit = config.data.image_size, codec.downsample * config.model.patch
    if size % unit:
        raise LiditError(
            f"config.data.image_size={size} must be a multiple of {unit} "
            "(downsampling of the autoencoder x config.model.patch)"
        )


def _latents(source: ImageSource, codec: ImageCodec, folder: Path, split: str) -> np.ndarray:
    with progress_bar(f"encoding {split} images") as progress:
        return prepare_latents(source, codec, folder, progress)


def _captions(source: ImageSource, folder: Path) -> list[str]:
    """All captions of a source, kept on disk because making them takes a while."""
    file = folder / f"{content_key('captions', {'source': repr(source)})}.json"
    if file.is_file():
        return json.loads(file.read_text())
    captions = [source.caption(i) for i in range(len(source))]
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as handle:
        handle.write(json.dumps(captions).encode())
    return captions
