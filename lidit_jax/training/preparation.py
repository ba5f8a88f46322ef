"""Preparation of training data: images to cached latents, captions to cached text features."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int32

from lidit_jax.autoencoders.frozen import FrozenAutoencoder, load_frozen_autoencoder
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.schema import Config, MeshConfig
from lidit_jax.data.captions import encoded_captions, read_captions, tokenized_captions
from lidit_jax.data.contents import Contents
from lidit_jax.data.grid_prompts import grid_prompts
from lidit_jax.data.image_source import ImageSource, Subset
from lidit_jax.data.latent_statistics import (
    STATISTICS_RECORDS,
    SavedStatistics,
    statistics_to_use,
)
from lidit_jax.data.latents import prepare_latents
from lidit_jax.data.pipeline import LatentRecords, PictureRecords
from lidit_jax.data.source_kinds import open_image_source, source_kind
from lidit_jax.encoders.conditions import PromptEncoders, pad_conditions
from lidit_jax.errors import LiditError
from lidit_jax.io.paths import cache_dir, to_path
from lidit_jax.io.progress import progress_bar
from lidit_jax.models.flops import TextStream
from lidit_jax.parallel.distributed import print_on_main
from lidit_jax.parallel.mesh import make_mesh
from lidit_jax.training.monitoring.scene_scores import SceneScores
from lidit_jax.training.prepared_data import FrozenModels, PreparedData
from lidit_jax.training.validation_records import validation_records

_SPLITS = ("train", "heldout")


def prepare(config: Config, saved: SavedStatistics | None = None) -> PreparedData:
    """Run the frozen models over the data, or find their cached outputs.

    The encoders and the autoencoder are frozen, so they run once over the data before training, and
    the steps read their outputs from disk. With `config.data.text_features="online"` captions are
    only tokenized before, and the encoders run during training; with `config.data.latents="online"`
    only held-out images and a sample are read and encoded before.

    Args:
      config: of the run.
      saved: latent statistics of the checkpoint that the run resumes or starts from, if any.

    Raises:
      LiditError: when a model or the data is missing, unreadable or does not fit the configuration.
    """
    source_kind(config)
    autoencoder = load_frozen_autoencoder(config.vae)
    _check_size(config, autoencoder)
    mesh, online = make_mesh(config.mesh), config.data.text_features == "online"
    encoders = PromptEncoders(config.encoders, mesh if online else _own_part(mesh))
    sources = {split: open_image_source(config, split) for split in _SPLITS}
    # Before the captions, which may take hours: a prompt of the user may be too long; captions are
    # cut, as in training.
    texts = grid_prompts(config, sources["train"])
    overflow = "error" if config.training.prompts else "truncate"
    prompts, _ = encoders.encode(texts, overflow)

    folder = to_path(config.data.cache_dir) if config.data.cache_dir else cache_dir() / "data"
    streamed = config.data.latents == "online"
    prepared = sources
    if streamed:  # the first images, for the latent statistics
        sample = range(min(len(sources["train"]), STATISTICS_RECORDS))
        prepared = sources | {"train": Subset(sources["train"], sample)}
    latents = {
        split: functools.cache(functools.partial(_latents, source, autoencoder, folder, split))
        for split, source in prepared.items()
    }
    captions = {
        split: read_captions(source, folder, config.data.workers)
        for split, source in sources.items()
    }
    unique = sorted({text for texts in captions.values() for text in texts})
    caption_id = {text: i for i, text in enumerate(unique)}
    if online:
        streams = tokenized_captions(encoders, unique)
    else:
        streams = encoded_captions(encoders, unique, folder)
    statistics = statistics_to_use(
        latents["train"],
        autoencoder.fingerprint,
        saved,
        config.data.latent_statistics,
        tell=lambda line: print_on_main([line]),
    )
    ids = {split: _ids_of_records(sources[split], captions[split], caption_id) for split in _SPLITS}
    heldout = LatentRecords(latents["heldout"](), *statistics, ids["heldout"], streams)
    if streamed:
        training = PictureRecords(sources["train"], ids["train"], streams)
    else:
        training = LatentRecords(latents["train"](), *statistics, ids["train"], streams)
    placed = autoencoder.on(mesh)
    contents = Contents.of(sources["train"])
    unconditional, _ = encoders.encode([""])
    return PreparedData(
        training_records=training,
        validation_records=validation_records(heldout),
        streams=tuple(TextStream(s.width, s.length, s.prefix_length) for s in streams),
        frozen=FrozenModels(
            pad_conditions(unconditional, [stream.length for stream in streams]),
            encoders.frozen if online else (),
            placed.params if streamed else (),
        ),
        statistics=statistics,
        autoencoder=placed,
        prompts=prompts,
        prompt_texts=texts,
        encode=encoders.features if online else None,
        scores=SceneScores(config, encoders) if config.training.score_every else None,
        contents=contents,
        provenance=Provenance(
            encoders=tuple(encoders.description),
            prefix_lengths=tuple(stream.prefix_length for stream in streams),
            autoencoder=autoencoder.fingerprint,
            latent_mean=tuple(statistics.mean.tolist()),
            latent_std=tuple(statistics.std.tolist()),
            data=contents.description,
        ),
    )


def _ids_of_records(
    source: ImageSource, captions: Sequence[str], caption_id: Mapping[str, int]
) -> Int32[np.ndarray, " n"]:
    """Return the index of each record's caption among the distinct captions."""
    ids = np.array([caption_id[text] for text in captions], np.int32)
    return ids[np.arange(len(source)) % len(ids)]


def _own_part(mesh: Mesh) -> Mesh:
    """Return a mesh of this process's devices for encoding before training: processes prepare data
    independently, and must not wait for each other's devices."""
    if jax.process_count() == 1:
        return mesh
    own = jax.local_devices()
    return make_mesh(MeshConfig(data=1, fsdp=len(own)), own)


def _check_size(config: Config, autoencoder: FrozenAutoencoder) -> None:
    size, unit = config.data.image_size, autoencoder.downsample * config.model.patch
    if size % unit:
        raise LiditError(
            f"config.data.image_size={size} must be a multiple of {unit} "
            "(downsampling of the autoencoder x config.model.patch)"
        )


def _latents(
    source: ImageSource, autoencoder: FrozenAutoencoder, folder: Path, split: str
) -> np.ndarray:
    with progress_bar(f"encoding {split} images") as progress:
        return prepare_latents(source, autoencoder, folder, progress)
