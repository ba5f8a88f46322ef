"""Preparation of a run: its data and frozen models, with everything that is computed before it."""

from __future__ import annotations

import jax
import numpy as np

from lidit_jax.autoencoders.frozen import FrozenAutoencoder, load_frozen_autoencoder
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.checks import check_size_embedding
from lidit_jax.config.schema import Config
from lidit_jax.data.cache.configured import configured_latents, configured_text
from lidit_jax.data.cache.latent_cache import LatentCache
from lidit_jax.data.caption_sample import caption_sample
from lidit_jax.data.caption_tokenizer import CaptionTokenizer, prompt_tokens
from lidit_jax.data.first_latents import first_latents
from lidit_jax.data.grid_prompts import grid_prompts
from lidit_jax.data.latent_encoding import LatentEncoder
from lidit_jax.data.latent_statistics import (
    STATISTICS_RECORDS,
    LatentStatistics,
    SavedStatistics,
    channel_statistics,
    statistics_to_use,
)
from lidit_jax.data.opened_data import OpenedData, open_data
from lidit_jax.data.source_opening import check_source
from lidit_jax.data.streamed_data import StreamedData
from lidit_jax.encoders.conditions import PromptEncoders, pad_conditions
from lidit_jax.parallel.distributed import all_gather, barrier, print_on_main
from lidit_jax.parallel.mesh import make_mesh, own_mesh
from lidit_jax.training.diffusion_loss import VALIDATION_TIMES
from lidit_jax.training.monitoring.scene_scores import SceneScores
from lidit_jax.training.prepared_data import FrozenModels, PreparedData

_ENOUGH_RECORDS = 64
"""Number of held-out records from which each is validated at only one time, in turn; of fewer each
is at every time, because the loss at the smallest time outweighs all others."""
_PATIENCE = 60.0
"""Minutes that the other processes wait for the latent statistics."""


def prepare(config: Config, saved: SavedStatistics | None = None) -> PreparedData:
    """Open the data and the frozen models of a run.

    The frozen models run over all data before training, or their cached outputs are opened. With
    `config.data.text_features="online"` captions are only tokenized, and the encoders run during
    training; with `config.data.latents="online"` images are read, and the autoencoder runs in the
    step.

    All processes call it together.

    Args:
      config: of the run.
      saved: latent statistics of the checkpoint that the run resumes or starts from, if any.

    Raises:
      LiditError: when a model or the data is missing, unreadable or does not fit the configuration.
    """
    check_source(config)
    autoencoder = load_frozen_autoencoder(config.vae)
    check_size_embedding(config, autoencoder.downsample)
    opened = open_data(config, autoencoder.downsample * config.model.patch)
    print_on_main(opened.report)
    mesh, online = make_mesh(config.mesh), config.data.text_features == "online"
    # Processes encode independently before training, and must not wait for each other's devices.
    alone = mesh if jax.process_count() == 1 else own_mesh()
    encoders = PromptEncoders(config.encoders, mesh if online else alone)
    # Before the captions, which may take hours: a prompt of the user may be too long; captions are
    # cut, as in training.
    texts = grid_prompts(config, opened)
    overflow = "error" if config.training.prompts else "truncate"
    prompts, _ = encoders.encode(texts, overflow)

    latents = configured_latents(config, opened, autoencoder)
    text = configured_text(config, opened, encoders) or _tokenizer(opened, encoders)
    statistics = statistics_to_use(
        lambda: _statistics(config, opened, latents, autoencoder),
        autoencoder.fingerprint,
        saved,
        config.data.latent_statistics,
        tell=lambda line: print_on_main([line]),
    )
    few = len(opened.held_out.records) < _ENOUGH_RECORDS
    streamed = StreamedData(
        config,
        opened,
        latents=latents,
        statistics=statistics,
        text=text,
        validation_times=VALIDATION_TIMES if few else 1,
    )
    placed = autoencoder.on(mesh)
    unconditional, _ = encoders.encode([""])
    return PreparedData(
        data=streamed,
        streams=streamed.streams,
        frozen=FrozenModels(
            pad_conditions(unconditional, [stream.tokens for stream in streamed.streams]),
            encoders.frozen if online else (),
            placed.params if latents is None else (),
        ),
        statistics=statistics,
        autoencoder=placed,
        prompts=prompts,
        prompt_texts=texts,
        encode=encoders.features if online else None,
        scores=SceneScores(config, encoders) if config.training.score_every else None,
        provenance=Provenance(
            encoders=tuple(encoders.description),
            prefix_lengths=tuple(stream.prefix_length for stream in streamed.streams),
            autoencoder=autoencoder.fingerprint,
            latent_mean=tuple(statistics.mean.tolist()),
            latent_std=tuple(statistics.std.tolist()),
            data=opened.contents.description,
        ),
    )


def _tokenizer(opened: OpenedData, encoders: PromptEncoders) -> CaptionTokenizer:
    """Return the tokenizer of captions, for lengths that each process measures a part of."""
    first = opened.order.first_records(STATISTICS_RECORDS)
    share = jax.process_index(), jax.process_count()
    measured = all_gather(prompt_tokens(encoders, caption_sample(opened.sources, first, share)))
    return CaptionTokenizer(encoders, [max(stream) for stream in zip(*measured, strict=True)])


def _statistics(
    config: Config,
    opened: OpenedData,
    latents: LatentCache | None,
    autoencoder: FrozenAutoencoder,
) -> LatentStatistics:
    """Return the statistics of the first latents, which process 0 reads or computes."""
    mine = None
    if jax.process_index() == 0:
        found = channel_statistics(
            first_latents(
                opened,
                STATISTICS_RECORDS,
                latents or LatentEncoder(autoencoder),
                config.data.reading,
            )
        )
        mine = [found.mean.tolist(), found.std.tolist()]
    barrier("the latent statistics", _PATIENCE)
    mean, std = all_gather(mine)[0]
    return LatentStatistics(np.asarray(mean), np.asarray(std))
