"""Validation of a configuration before a run: choices, ranges, and fields that must agree.

Mistakes are reported in the first second rather than after an hour of preparation. The values of
`data.source` are in `lidit_jax.data.sources.registry`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from typing import Any

from lidit_jax.config.data_settings import AugmentationSettings
from lidit_jax.config.prompt_text import prompt_text
from lidit_jax.config.schema import Config, ModelConfig, RefinerConfig, VAEConfig
from lidit_jax.config.values import LayerChoice, field_types, literal_values, ranges
from lidit_jax.errors import LiditError, quoted
from lidit_jax.io.paths import local_path
from lidit_jax.weights.path_patterns import compiled

ENCODER_TEXTS = ("instruction", "system_prompt")
"""Fields of `config.encoders` that are input to the encoders."""


def check(config: Config) -> Config:
    """Check a configuration and return it unchanged.

    Raises:
      LiditError: for the first value that is out of range or does not fit another.
    """
    for path, hint in field_types(Config).items():
        _check_field(path, hint, functools.reduce(getattr, path.split("."), config))
    _check_encoders(config)
    _check_scores(config)
    _check_data(config)
    local_path(config.training.local_checkpoints)
    _check_start(config)
    _check_patterns("optimizer.freeze", config.optimizer.freeze)
    if config.training.task == "lidit":
        _check_model(config)
    else:
        _check_autoencoder(config)
    return config


def _check_field(path: str, hint: Any, value: Any) -> None:
    known = literal_values(hint)
    if known and value not in known:
        raise LiditError(f"config.{path}={value!r}: choose one of {quoted(known)}")
    for allowed in ranges(hint):
        if not allowed.holds(value):
            raise LiditError(f"config.{path}={value!r}: {allowed.requirement}")


def _check_start(config: Config) -> None:
    training = config.training
    if training.init_optimizer and not training.init_from:
        raise LiditError(
            "config.training.init_optimizer needs a workdir in config.training.init_from"
        )
    if training.init_new and not training.init_from:
        raise LiditError(
            f"config.training.init_new={training.init_new} needs a source of all other weights in "
            "config.training.init_from; without one, all start afresh"
        )
    if training.init_new and training.init_optimizer:
        raise LiditError(
            "config.training.init_optimizer takes over all weights and moments: set it to False, "
            f"or config.training.init_new={training.init_new} to ()"
        )
    _check_patterns("training.init_new", training.init_new)


def _check_patterns(name: str, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        try:
            compiled(pattern)
        except re.error as error:
            raise LiditError(
                f"config.{name}: {pattern!r} is not a regular expression: {error}"
            ) from error


def _check_encoders(config: Config) -> None:
    encoders = config.encoders
    if not encoders.sources:
        raise LiditError("config.encoders.sources is empty: name at least one text encoder")
    if encoders.layers and len(encoders.layers) != len(encoders.sources):
        raise LiditError(
            f"config.encoders.layers has {len(encoders.layers)} entries for "
            f"{len(encoders.sources)} encoders: give one per encoder, or none"
        )
    for choice in encoders.layers:
        if isinstance(choice, tuple) and not 0 < len(set(choice)) == len(choice):
            raise LiditError(
                f"config.encoders.layers={encoders.layers}: name each layer of an encoder once, "
                "and at least one"
            )
    several = any(choice == "all" or _is_several(choice) for choice in encoders.layers)
    if (mix := config.model.refiner.layer_mix) != RefinerConfig.layer_mix and not several:
        raise LiditError(
            f"config.model.refiner.layer_mix={mix!r} combines several layers of an encoder, but "
            f"config.encoders.layers={encoders.layers} has one for each: name more, such as "
            f"{((-3, -9),) * len(encoders.sources)}"
        )
    for name in ENCODER_TEXTS:
        prompt_text(f"config.encoders.{name}", getattr(encoders, name))


def _is_several(choice: LayerChoice) -> bool:
    return isinstance(choice, tuple) and len(choice) > 1


def _check_model(config: Config) -> None:
    model, data = config.model, config.data
    if model.width % model.heads:
        raise LiditError(
            f"config.model.heads={model.heads} does not divide config.model.width={model.width}: "
            "choose a divisor"
        )
    # Sines and cosines of rows and columns are four equal parts.
    parts = {"rope": model.width // model.heads, "sincos": model.width}
    for position, channels in parts.items():
        if position in model.position and channels % 4:
            raise LiditError(
                f"config.model.position={model.position!r} needs a multiple of 4 channels"
                f"{' per head' if position == 'rope' else ''}, not {channels}: "
                "change config.model.width or heads"
            )
    _check_pixart_fields(model)
    # The downsampling of an autoencoder with weights is known once it is loaded.
    if config.vae.source == "pixels":
        check_size_embedding(config, downsample=1)
    if config.vae.source == "pixels" and data.image_size % model.patch:
        raise LiditError(
            f"config.data.image_size={data.image_size} must be a multiple of "
            f"config.model.patch={model.patch}"
        )
    for i, prompt in enumerate(config.training.prompts):
        prompt_text(f"config.training.prompts[{i}]", prompt)


def _check_pixart_fields(model: ModelConfig) -> None:
    """Check fields that act only together with another one."""
    if "sincos" not in model.position:
        for name, default in (("sincos_extent", 0.0), ("sincos_order", "row_first")):
            if (value := getattr(model, name)) != default:
                raise LiditError(
                    f"config.model.{name}={value!r} acts on position 'sincos', not on "
                    f"config.model.position={model.position!r}: set it back to {default!r}"
                )
    if model.refiner.pool == "none" and model.refiner.pool_raw:
        raise LiditError(
            "config.model.refiner.pool_raw=True: config.model.refiner.pool='none' pools nothing; "
            "set it to False"
        )
    if model.size_embedding and model.width % 3:
        raise LiditError(
            f"config.model.size_embedding={model.size_embedding} needs a multiple of 3 channels, "
            f"not {model.width}: change config.model.width, or set it to 0"
        )


def check_size_embedding(config: Config, downsample: int) -> None:
    """Check that the size embedding counts the pixels of the autoencoder's latents.

    Args:
      config: of the run.
      downsample: image pixels per latent pixel, along each side.

    Raises:
      LiditError: when it counts others.
    """
    if config.model.size_embedding not in (0, downsample):
        raise LiditError(
            f"config.model.size_embedding={config.model.size_embedding}: with config.vae.source="
            f"{config.vae.source!r} a latent pixel spans {downsample}; set it to that, or to 0"
        )


def _check_scores(config: Config) -> None:
    training = config.training
    if training.score_every and training.task != "lidit":
        raise LiditError(
            f"config.training.score_every={training.score_every}: only text-to-image models have a "
            "score; set it to 0"
        )
    if training.best_by == "scene_score" and not training.score_every:
        raise LiditError(
            "config.training.best_by='scene_score' needs config.training.score_every greater than 0"
        )


def _check_data(config: Config) -> None:
    data = config.data
    sources = 1 + len(data.mixture)
    if data.weights and (len(data.weights) != sources or not all(map(_is_positive, data.weights))):
        raise LiditError(
            f"config.data.weights={data.weights}: give each of the {sources} sources, that of "
            "config.data.path and those of config.data.mixture, one that is greater than 0"
        )
    for i, source in enumerate(data.mixture):
        if not source.strip():
            raise LiditError(f"config.data.mixture[{i}] is empty: name a source as FORMAT:PATH")
    rates, columns = data.captions.rates, data.captions.columns
    if rates and len(rates) != len(columns):
        raise LiditError(
            f"config.data.captions.rates={rates}: give one for each of config.data.captions."
            f"columns={columns}"
        )
    if config.training.task == "vae" and data.latents == "online":
        raise LiditError(
            "config.data.latents='online': an autoencoder is trained on images, not on latents; "
            "set it to 'cached'"
        )
    if config.training.task == "lidit" and data.latents == "cached":
        _check_cached_augmentation(data.augmentation)


def _check_cached_augmentation(augmentation: AugmentationSettings) -> None:
    for name, value in dataclasses.asdict(augmentation).items():
        if value:
            raise LiditError(
                f"config.data.augmentation.{name}={value}: cached latents hold each image as it "
                "is; set it back, or config.data.latents to 'online'"
            )


def _is_positive(weight: float) -> bool:
    return 0 < weight < math.inf


def _check_autoencoder(config: Config) -> None:
    vae, size = config.vae, config.data.image_size
    if vae.architecture == "kl":
        _check_stages(vae)
    else:
        stages = vae.downsample // vae.patch
        if vae.downsample % vae.patch or stages & (stages - 1):
            raise LiditError(
                f"config.vae.downsample={vae.downsample} must be config.vae.patch={vae.patch} "
                "times 1, 2, 4, 8, ..."
            )
    if size % vae.downsample:
        raise LiditError(
            f"config.data.image_size={size} must be a multiple of "
            f"config.vae.downsample={vae.downsample}"
        )


def _check_stages(vae: VAEConfig) -> None:
    if vae.downsample != 2 ** (len(vae.multipliers) - 1):
        raise LiditError(
            f"config.vae.multipliers={vae.multipliers}: each stage but the last halves the image, "
            f"so config.vae.downsample must be {2 ** max(len(vae.multipliers) - 1, 0)}, "
            f"not {vae.downsample}"
        )
    for multiplier in vae.multipliers:
        if multiplier <= 0 or vae.width * multiplier % vae.norm_groups:
            raise LiditError(
                f"config.vae.norm_groups={vae.norm_groups} must divide config.vae.width="
                f"{vae.width} times each of config.vae.multipliers={vae.multipliers}"
            )
