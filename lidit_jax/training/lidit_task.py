"""What the loop needs to train LI-DiT: prepared data, the loss, and images to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from clu.metrics import Average
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float

from lidit_jax.autoencoders.frozen import ImageCodec, load_codec
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.schema import Config, MeshConfig
from lidit_jax.data.captions import encoded_captions, read_captions, tokenized_captions
from lidit_jax.data.latents import ImageSource, channel_statistics, prepare_latents
from lidit_jax.data.pipeline import LatentRecords
from lidit_jax.data.sources import open_source
from lidit_jax.diffusion import process as processes
from lidit_jax.diffusion.dropout import drop_captions, sample_keys
from lidit_jax.encoders.conditions import (
    FrozenStream,
    PromptEncoders,
    TextConditions,
    pad_conditions,
)
from lidit_jax.errors import LiditError
from lidit_jax.io.paths import cache_dir, to_path
from lidit_jax.io.progress import progress_bar
from lidit_jax.models.flops import TextStream, forward_flops
from lidit_jax.models.lidit import LIDiT
from lidit_jax.models.refiner import GATE_MAGNITUDES
from lidit_jax.parallel.mesh import make_mesh, replicated
from lidit_jax.sampling.generator import Generator
from lidit_jax.training.monitoring.scene_scores import SceneScores
from lidit_jax.training.step import Batch, Metrics

_VALIDATION_TIMES = 8
_ENOUGH_RECORDS = 64
"""From here on each held-out record is evaluated at one time only, in turn."""


class Frozen(NamedTuple):
    """What every step reads and nothing changes."""

    null: TextConditions
    """The empty prompt with its instruction: what a dropped caption becomes."""
    encoders: tuple[FrozenStream, ...] = ()
    """The text encoders, where they run during training."""


class _AtEveryTime:
    """Few records, each as often as there are times of validation, with numbers of their own.

    The loss at the smallest time outweighs all others, so each time must have as many records.
    """

    def __init__(self, records: LatentRecords):
        self._records = records

    def __len__(self) -> int:
        return len(self._records) * _VALIDATION_TIMES

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record, with the new number, which decides time and noise."""
        return self._records[index // _VALIDATION_TIMES] | {"index": np.int32(index)}


class LIDiTTask:
    """The diffusion loss on latents and text features.

    The encoders and the autoencoder are frozen, so they run once over the data before training, and
    the steps read their outputs from disk. With `config.data.text_features="online"` captions are
    only tokenised before, and the encoders run during training.
    """

    def __init__(self, config: Config):
        self._config = config
        self._process = processes.from_config(config.diffusion)
        self._model = LIDiT(config.model)
        self._training_model = LIDiT(config.model, config.training.matmul)
        codec = load_codec(config.vae)
        _check_size(config, codec)
        mesh, online = make_mesh(config.mesh), config.data.text_features == "online"
        encoders = PromptEncoders(config.encoders, mesh if online else _own_part(mesh))
        # Before the captions, which may take hours: one of these prompts may be too long.
        self._prompts, _ = encoders.encode(config.training.prompts)
        folder = to_path(config.data.cache_dir) if config.data.cache_dir else cache_dir() / "data"

        sources = {split: open_source(config, split) for split in ("train", "heldout")}
        latents = {
            split: _latents(source, codec, folder, split) for split, source in sources.items()
        }
        captions = {split: read_captions(source, folder) for split, source in sources.items()}
        unique = sorted({text for texts in captions.values() for text in texts})
        caption_id = {text: i for i, text in enumerate(unique)}
        if online:
            streams = tokenized_captions(encoders, unique)
        else:
            streams = encoded_captions(encoders, unique, folder)
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
        if len(self.validation_records) < _ENOUGH_RECORDS:
            self.validation_records = _AtEveryTime(self.validation_records)
        self._crop = tuple(stream.crop for stream in streams)
        null, _ = encoders.encode([""])
        self.frozen = Frozen(
            pad_conditions(null, [stream.length for stream in streams]),
            encoders.frozen if online else (),
        )
        self._features = encoders.features if online else None
        self.provenance = Provenance(
            encoders=tuple(encoders.description),
            prefix_lengths=self._crop,
            autoencoder=codec.fingerprint,
            latent_mean=tuple(mean.tolist()),
            latent_deviation=tuple(deviation.tolist()),
        )
        rows, columns, channels = self.training_records[0]["latent"].shape
        self.training_flops = forward_flops(
            config.model,
            rows * columns // config.model.patch**2,
            channels,
            [TextStream(s.width, s.length, s.crop) for s in streams],
        ).training
        self._generator = Generator(
            self._model, self._process, codec.on(mesh), mean, deviation, self._crop
        )
        if config.training.score_every:
            self._scores = SceneScores(config, encoders)

    def frozen_shardings(self, mesh: Mesh) -> Frozen:
        """Weights of encoders stay split as they were loaded; all else is on every device."""
        whole = replicated(mesh)

        def kept(leaf: jax.Array) -> NamedSharding:
            return leaf.sharding if isinstance(leaf.sharding, NamedSharding) else whole

        return Frozen(
            jax.tree.map(lambda _: whole, self.frozen.null),
            tuple(
                FrozenStream(
                    jax.tree.map(kept, stream.params),
                    jax.tree.map(lambda _: whole, stream.instruction),
                )
                for stream in self.frozen.encoders
            ),
        )

    def init(self, key: jax.Array) -> Any:
        """Fresh parameters."""
        record = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], self.training_records[0])
        shapes = jax.eval_shape(self.encode, self.frozen, record)
        sample = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return self._model.init(
            key, sample["latent"], jnp.zeros(1), sample["features"], sample["masks"], self._crop
        )["params"]

    def encode(self, frozen: Frozen, batch: Batch) -> Batch:
        """The batch with features in the place of token ids, if it has any; pure.

        They are rounded to bfloat16, like features from disk.
        """
        if "ids" not in batch:
            return batch
        rest = {name: value for name, value in batch.items() if name != "ids"}
        features = self._features(frozen.encoders, batch["ids"], batch["masks"])
        return rest | {"features": jax.tree.map(lambda f: f.astype(jnp.bfloat16), features)}

    def loss(
        self, params: Any, frozen: Frozen, batch: Batch, key: jax.Array
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
            frozen.null.features,
            frozen.null.masks,
            self._config.diffusion.caption_dropout,
        )
        prediction, left = self._training_model.apply(
            {"params": params},
            *self._inputs(x0, noise, t, features, masks),
            mutable=[GATE_MAGNITUDES],
        )
        losses = self._process.loss(prediction, x0, noise, t)
        by_time = _losses_by_time(losses, self._process.model_time(t))
        return jnp.mean(losses), by_time | _gate_magnitudes(left)

    def validation_losses(self, params: Any, frozen: Frozen, batch: Batch) -> Float[Array, " B"]:
        """The loss of each sample at one of eight fixed times, with fixed noise and no dropout."""
        del frozen
        x0, index = batch["latent"], batch["index"]
        times = jnp.asarray(self._process.times_for_validation(_VALIDATION_TIMES))
        t = times[index % _VALIDATION_TIMES]
        draw_noise = lambda key: jax.random.normal(key, x0.shape[1:])  # noqa: E731
        noise = jax.vmap(draw_noise)(sample_keys(jax.random.key(0), index))
        inputs = self._inputs(x0, noise, t, batch["features"], batch["masks"])
        return self._process.loss(self._model.apply({"params": params}, *inputs), x0, noise, t)

    def sample_images(self, params: Any, frozen: Frozen) -> tuple[np.ndarray, list[str]]:
        """The fixed prompts, at the configuration's sampling settings and fixed seeds."""
        sampling, size = self._config.sampling, self._config.data.image_size
        prompts = list(self._config.training.prompts)
        images = self._generator(
            params,
            self._prompts,
            frozen.null,
            seeds=range(len(prompts)),
            size=(size, size),
            settings=sampling,
        )
        return images, prompts

    def scores(self, params: Any, frozen: Frozen) -> dict[str, float]:
        """See `SceneScores`."""
        return self._scores(self._generator, params, frozen.null)

    def _inputs(self, x0: Any, noise: Any, t: Any, features: Any, masks: Any) -> tuple[Any, ...]:
        """What the network is called with."""
        process = self._process
        x_t = process.add_noise(x0, noise, t)
        return x_t, process.model_time(t), features, masks, self._crop


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


def _gate_magnitudes(left: dict[str, Any]) -> dict[str, Array]:
    """Mean size of the gates of each refiner block and stream: 0 until it takes part."""
    blocks = flax.traverse_util.flatten_dict(left.get(GATE_MAGNITUDES, {}))
    return {"/".join(("gates", *path[:-1])): value for path, (value,) in blocks.items()}


def _own_part(mesh: Mesh) -> Mesh:
    """The devices of this process, over which it splits encoders that work before training: the
    processes prepare data at times of their own, and must not wait for each other's devices."""
    if jax.process_count() == 1:
        return mesh
    own = jax.local_devices()
    return make_mesh(MeshConfig(data=1, fsdp=len(own)), own)


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
