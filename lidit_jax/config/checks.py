"""What a configuration must satisfy before anything starts: choices, ranges, and fields that fit.

A mistake is found here, in the first second, rather than after an hour of preparation.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

from lidit_jax.config.schema import Config, VAEConfig
from lidit_jax.errors import LiditError
from lidit_jax.io.paths import local_path

_CHOICES: dict[str, tuple[str, ...]] = {
    "model.position": ("conv", "rope", "sincos", "conv+rope", "conv+sincos"),
    "model.dtype": ("float32", "bfloat16"),
    "model.attention": ("auto", "reference", "splash", "cudnn"),
    "model.refiner.feature_norm": ("rms", "none"),
    "model.refiner.pool": ("all", "prompt"),
    "diffusion.process": ("ddpm", "flow"),
    "diffusion.prediction": ("epsilon", "v", "x0", "velocity"),
    "diffusion.loss": ("", "epsilon", "v", "x0", "velocity"),
    "diffusion.time_sampling": ("uniform", "logit_normal", "mode"),
    "vae.architecture": ("patch", "kl"),
    "vae.dtype": ("float32", "bfloat16"),
    "vae.reconstruction": ("l1", "l2"),
    "encoders.dtype": ("float32", "bfloat16", "int8"),
    "data.source": ("scenes", "folder"),
    "data.language": ("en", "zh", "both"),
    "data.text_features": ("cached", "online"),
    "model.remat": ("none", "full", "dots", "branches", "attention", "offload"),
    "optimizer.name": ("adamw", "adafactor", "muon"),
    "optimizer.schedule": ("constant", "cosine", "warmup_stable_decay"),
    "optimizer.momentum_dtype": ("float32", "bfloat16"),
    "training.task": ("lidit", "vae"),
    "training.matmul": ("", "int8", "fp8"),
    "training.best_by": ("validation_loss_ema", "scene_score"),
    "training.tracker": ("", "wandb", "trackio"),
}
_POSITIVE = (
    "model.width",
    "model.depth",
    "model.heads",
    "model.patch",
    "model.mlp_ratio",
    "model.scan_unroll",
    "model.refiner.mlp_ratio",
    "vae.channels",
    "vae.width",
    "vae.downsample",
    "vae.patch",
    "vae.blocks",
    "vae.norm_groups",
    "diffusion.timesteps",
    "data.image_size",
    "data.encode_steps",
    "data.train_records",
    "data.validation_records",
    "training.steps",
    "training.batch_size",
    "training.log_every",
    "training.eval_every",
    "training.image_every",
    "training.checkpoint_every",
    "training.local_every",
    "training.keep_checkpoints",
    "training.accumulation",
    "training.stop_after_skipped",
    "training.score_prompts",
    "training.profile_steps",
    "sampling.steps",
    "sampling.cache_interval",
    "encoders.max_prompt_tokens",
    "optimizer.learning_rate",
    "optimizer.clip_norm",
)
_NOT_NEGATIVE = (
    "model.refiner.blocks",
    "model.refiner.collaborative_blocks",
    "vae.kl_weight",
    "vae.gradient_weight",
    "vae.tile",
    "data.distinct_captions",
    "optimizer.warmup_steps",
    "optimizer.decay_steps",
    "optimizer.skip_spikes",
    "training.keep_every",
    "training.score_every",
    "training.watchdog_minutes",
    "training.barrier_minutes",
    "training.profile_from",
    "optimizer.weight_decay",
    "sampling.guidance",
)
_DECAYS = ("optimizer.beta1", "optimizer.beta2", "training.ema_decay")
_RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (_POSITIVE, lambda value: 0 < value < math.inf, "must be greater than 0, and finite"),
    (_NOT_NEGATIVE, lambda value: 0 <= value < math.inf, "must be 0 or greater, and finite"),
    (_DECAYS, lambda value: 0 <= value < 1, "must be at least 0 and less than 1"),
    (("diffusion.caption_dropout",), lambda value: 0 <= value <= 1, "must be from 0 to 1"),
    (("seed",), lambda value: 0 <= value < 2**32, f"must be from 0 to {2**32 - 1}"),
)


def check(config: Config) -> Config:
    """The configuration itself, once it has been checked.

    Raises:
      LiditError: for the first value that is out of range or does not fit another.
    """
    for path, choices in _CHOICES.items():
        value = _value(config, path)
        if value not in choices:
            raise LiditError(f"config.{path}={value!r}: choose one of {_quoted(choices)}")
    for paths, valid, requirement in _RANGES:
        for path in paths:
            value = _value(config, path)
            if not valid(value):
                raise LiditError(f"config.{path}={value!r}: {requirement}")
    _check_encoders(config)
    _check_scores(config)
    local_path(config.training.local_checkpoints)
    if config.training.init_optimizer and not config.training.init_from:
        raise LiditError(
            "config.training.init_optimizer needs a workdir in config.training.init_from"
        )
    if config.training.task == "lidit":
        _check_model(config)
    else:
        _check_autoencoder(config)
    return config


def _check_encoders(config: Config) -> None:
    encoders = config.encoders
    if not encoders.sources:
        raise LiditError("config.encoders.sources is empty: name at least one text encoder")
    if encoders.layers and len(encoders.layers) != len(encoders.sources):
        raise LiditError(
            f"config.encoders.layers has {len(encoders.layers)} entries for "
            f"{len(encoders.sources)} encoders: give one a stream, or none"
        )


def _check_model(config: Config) -> None:
    model, data = config.model, config.data
    if model.width % model.heads:
        raise LiditError(
            f"config.model.heads={model.heads} does not divide config.model.width={model.width}: "
            "choose a divisor"
        )
    # Sines and cosines of rows and of columns: four equal parts.
    parts = {"rope": model.width // model.heads, "sincos": model.width}
    for position, channels in parts.items():
        if position in model.position and channels % 4:
            raise LiditError(
                f"config.model.position={model.position!r} needs a multiple of 4 channels"
                f"{' a head' if position == 'rope' else ''}, there are {channels}: "
                "change config.model.width or heads"
            )
    # The downsampling of an autoencoder with weights is known once it is loaded.
    if config.vae.source == "pixels" and data.image_size % model.patch:
        raise LiditError(
            f"config.data.image_size={data.image_size} must be a multiple of "
            f"config.model.patch={model.patch}"
        )
    if not config.training.prompts:
        raise LiditError("config.training.prompts is empty: give at least one prompt")


def _check_scores(config: Config) -> None:
    training = config.training
    if training.score_every and (config.data.source, training.task) != ("scenes", "lidit"):
        raise LiditError(
            f"config.training.score_every={training.score_every}: only text-to-image models of "
            "scenes have a score; set it to 0"
        )
    if training.best_by == "scene_score" and not training.score_every:
        raise LiditError(
            "config.training.best_by='scene_score' needs config.training.score_every greater than 0"
        )


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
            f"config.vae.multipliers={vae.multipliers}: the stages but the last halve the image, "
            f"so config.vae.downsample must be {2 ** max(len(vae.multipliers) - 1, 0)}, "
            f"not {vae.downsample}"
        )
    for multiplier in vae.multipliers:
        if multiplier <= 0 or vae.width * multiplier % vae.norm_groups:
            raise LiditError(
                f"config.vae.norm_groups={vae.norm_groups} must divide config.vae.width="
                f"{vae.width} times each of config.vae.multipliers={vae.multipliers}"
            )


def _value(config: Config, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), config)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
