"""Caches of a configuration: what training opens, and `lidit cache` makes beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lidit_jax.autoencoders.frozen import FrozenAutoencoder
from lidit_jax.config.schema import Config
from lidit_jax.data.cache.latent_cache import LatentCache, latent_cache
from lidit_jax.data.cache.text_cache import TextCache, text_cache
from lidit_jax.data.opened_data import OpenedData
from lidit_jax.encoders.conditions import PromptEncoders
from lidit_jax.io.paths import cache_dir, to_path


def configured_latents(
    config: Config, data: OpenedData, autoencoder: FrozenAutoencoder
) -> LatentCache | None:
    """Open the cached latents of a run, after encoding what is missing; None for "online".

    All processes call it together.

    Args:
      config: of the run.
      data: its data.
      autoencoder: its autoencoder.

    Raises:
      LiditError: see `latent_cache`.
    """
    if config.data.latents == "online":
        return None
    return latent_cache(data, autoencoder, **_options(config))


def configured_text(config: Config, data: OpenedData, encoders: PromptEncoders) -> TextCache | None:
    """Open the cached text features of a run, after encoding what is missing; None for "online".

    All processes call it together.

    Args:
      config: of the run.
      data: its data.
      encoders: its encoders, on devices of this process only.

    Raises:
      LiditError: see `text_cache`.
    """
    if config.data.text_features == "online":
        return None
    storage = config.data.text_storage
    return text_cache(data, encoders, **_options(config), storage=storage)


def _options(config: Config) -> dict[str, Any]:
    data = config.data
    folder: Path = to_path(data.cache_dir) if data.cache_dir else cache_dir() / "data"
    return {
        "folder": folder,
        "reading": data.reading,
        "missing": data.cache_missing,
        "workers": data.workers,
    }
