"""Configuration of LI-DiT for a PixArt pipeline, from the JSON files of diffusers' layout.

Every field of a file is used, has no effect on PixArt, or is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lidit_jax.config.schema import DiffusionConfig, ModelConfig, RefinerConfig, SamplingConfig
from lidit_jax.config.values import ComputeType
from lidit_jax.errors import LiditError, quoted
from lidit_jax.models.layers import NORM_EPSILON

CONFIG, SCHEDULER, INDEX = "config.json", "scheduler_config.json", "model_index.json"

PIPELINES = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}
"""Classes of pipelines, and the length to which each cuts prompts, in tokens with the end token."""

_STEPS, _GUIDANCE = 20, 4.5  # of both pipelines

_TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "cross_attention_dim": 1152,
    "sample_size": 128,
    "patch_size": 2,
    "interpolation_scale": None,
    "use_additional_conditions": None,
    "caption_channels": None,
}
"""Fields that are used, with the values that diffusers takes for missing ones."""
_TRANSFORMER_FIXED: dict[str, Any] = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_type": "default",
    "double_self_attention": False,
    "dropout": 0.0,
    "norm_elementwise_affine": False,
    "norm_eps": NORM_EPSILON,
    "norm_type": "ada_norm_single",
    "num_vector_embeds": None,
    "only_cross_attention": False,
    "upcast_attention": False,
    "use_linear_projection": False,
}
"""Fields with the only value that is supported, which diffusers takes for missing ones."""
_TRANSFORMER_IDLE = ("norm_num_groups", "num_embeds_ada_norm")

_SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "algorithm_type": "dpmsolver++",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
    "use_karras_sigmas": False,
}
_SCHEDULER_FIXED: dict[str, Any] = {
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -math.inf,
    "rescale_betas_zero_snr": False,
    "solver_order": 2,
    "solver_type": "midpoint",
    "thresholding": False,
    "trained_betas": None,
    "use_beta_sigmas": False,
    "use_dynamic_shifting": False,
    "use_exponential_sigmas": False,
    "use_flow_sigmas": False,
    "use_lu_lambdas": False,
    "variance_type": None,
}
_SCHEDULER_IDLE = (
    # Without thresholding and flow.
    *("dynamic_thresholding_ratio", "sample_max_value", "flow_shift", "time_shift_type"),
    # The last step is first order in any case, because it ends without noise.
    *("lower_order_final", "euler_at_final"),
)
_SCHEDULES = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "squaredcos_cap_v2": "cosine",
}
_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
_SAMPLERS = {"dpmsolver++": "dpm++2m", "sde-dpmsolver++": "dpm++2m_sde"}
_SPACINGS = ("linspace", "leading", "trailing")


@dataclass(frozen=True)
class PixArtTransformer:
    """Sizes of a PixArt transformer."""

    model: ModelConfig
    channels: int
    """Latent channels C."""
    variance: bool
    """Whether it predicts a variance, in as many more channels."""
    feature_width: int
    """Width of the text features."""
    sample_size: int
    """Side of its latents, in latent pixels."""


def read_transformer(
    stored: Mapping[str, Any], file: Path, downsample: int, dtype: ComputeType
) -> PixArtTransformer:
    """Return the network of a transformer's `config.json`.

    Args:
      stored: content of the file.
      file: where it is from, for messages.
      downsample: image pixels per latent pixel of the autoencoder.
      dtype: compute type of the network.

    Raises:
      LiditError: when it is no PixArt transformer, or a field has a value that is not supported.
    """
    _check_class(stored, file, ("PixArtTransformer2DModel", "Transformer2DModel"))
    fields = _fields(stored, file, _TRANSFORMER, _TRANSFORMER_FIXED, _TRANSFORMER_IDLE)
    try:
        heads, head_width, channels, depth, patch, side, features = (
            _positive(name, fields[name])
            for name in (
                *("num_attention_heads", "attention_head_dim", "in_channels", "num_layers"),
                *("patch_size", "sample_size", "caption_channels"),
            )
        )
        scale = fields["interpolation_scale"]
        scale = max(side // 64, 1) if scale is None else float(scale)
        if not 0 < scale < math.inf:
            raise ValueError(f"interpolation_scale={scale}: must be greater than 0")
    except (TypeError, ValueError) as error:
        raise LiditError(f"{file} is not valid: {error}") from error
    width = heads * head_width
    _check_value(file, "cross_attention_dim", fields["cross_attention_dim"], (width,))
    out = channels if fields["out_channels"] is None else fields["out_channels"]
    _check_value(file, "out_channels", out, (channels, 2 * channels))
    sized = fields["use_additional_conditions"]
    _check_value(file, "use_additional_conditions", sized, (None, False, True))
    if sized is None:  # as diffusers decides
        sized = side == 128
    model = ModelConfig(
        width=width,
        depth=depth,
        heads=heads,
        patch=patch,
        position="sincos",
        sincos_extent=side // patch / scale,
        sincos_order="column_first",
        qk_norm=False,
        cross_attention="plain",
        output_modulation="table",
        size_embedding=downsample if sized else 0,
        refiner=RefinerConfig(
            blocks=0, collaborative_blocks=0, feature_norm="none", pool="none", projection="mlp"
        ),
        dtype=dtype,
    )
    return PixArtTransformer(model, channels, out == 2 * channels, features, side)


def read_scheduler(stored: Mapping[str, Any], file: Path) -> tuple[DiffusionConfig, SamplingConfig]:
    """Return the diffusion process and the sampling defaults of a `scheduler_config.json`.

    Args:
      stored: content of the file.
      file: where it is from, for messages.

    Raises:
      LiditError: when it is another scheduler than DPM-Solver++, or a field has a value that is
        not supported.
    """
    _check_class(stored, file, ("DPMSolverMultistepScheduler",))
    fields = _fields(stored, file, _SCHEDULER, _SCHEDULER_FIXED, _SCHEDULER_IDLE)

    def translated(name: str, table: Mapping[str, Any]) -> Any:
        _check_value(file, name, fields[name], tuple(table))
        return table[fields[name]]

    spacing = fields["timestep_spacing"]
    _check_value(file, "timestep_spacing", spacing, _SPACINGS)
    if spacing == "leading":
        _check_value(file, "steps_offset", fields["steps_offset"], (0,))
    _check_value(file, "use_karras_sigmas", fields["use_karras_sigmas"], (False, True))
    try:
        timesteps = _positive("num_train_timesteps", fields["num_train_timesteps"])
        start, end = float(fields["beta_start"]), float(fields["beta_end"])
    except (TypeError, ValueError) as error:
        raise LiditError(f"{file} is not valid: {error}") from error
    diffusion = DiffusionConfig(
        process="ddpm",
        prediction=translated("prediction_type", _PREDICTIONS),
        timesteps=timesteps,
        schedule=translated("beta_schedule", _SCHEDULES),
        beta_start=start,
        beta_end=end,
    )
    sampling = SamplingConfig(
        sampler=translated("algorithm_type", _SAMPLERS),
        steps=_STEPS,
        spacing="karras" if fields["use_karras_sigmas"] else spacing,
        guidance=_GUIDANCE,
    )
    return diffusion, sampling


def read_pipeline(stored: Mapping[str, Any], file: Path) -> int:
    """Return the longest prompt of a pipeline's `model_index.json`, in tokens.

    Args:
      stored: content of the file.
      file: where it is from, for messages.

    Raises:
      LiditError: when it is another pipeline than PixArt's.
    """
    _check_class(stored, file, tuple(PIPELINES))
    return PIPELINES[stored["_class_name"]] - 1  # without the end token


def _fields(
    stored: Mapping[str, Any],
    file: Path,
    used: Mapping[str, Any],
    fixed: Mapping[str, Any],
    idle: tuple[str, ...],
) -> dict[str, Any]:
    """Return the fields that are used, after all others have been checked."""
    known = {*used, *fixed, *idle}
    unknown = [name for name in stored if name not in known and not name.startswith("_")]
    if unknown:
        raise LiditError(f"{file}: {', '.join(unknown)}: not a field of PixArt that is supported")
    for name, value in fixed.items():
        _check_value(file, name, stored.get(name, value), (value,))
    return {name: stored.get(name, default) for name, default in used.items()}


def _check_class(stored: Mapping[str, Any], file: Path, allowed: tuple[str, ...]) -> None:
    _check_value(file, "_class_name", stored.get("_class_name"), allowed)


def _check_value(file: Path, name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise LiditError(f"{file}: {name}={value!r} is not supported, only {quoted(allowed)}")


def _positive(name: str, value: Any) -> int:
    if not isinstance(value, int) or value <= 0:
        raise ValueError(f"{name}={value!r}: must be a whole number greater than 0")
    return value
