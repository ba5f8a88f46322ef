"""Sampling settings: a checkpoint's defaults, overrides by the user, and their validation."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any

from lidit_jax.config.schema import Config, SamplingConfig
from lidit_jax.diffusion import process as processes
from lidit_jax.diffusion.base import Process
from lidit_jax.diffusion.guidance import METHODS, Guidance
from lidit_jax.diffusion.samplers import Sampler, solver_tables
from lidit_jax.errors import LiditError, quoted
from lidit_jax.sampling.values import as_integer, number, text

_FIELDS = {field.name: field for field in dataclasses.fields(SamplingConfig)}

_KEYWORDS = ("size", "seed", "negative_prompt", "blend_with", "blend", "variation")
_KEYWORDS += ("variation_seed", "image", "mask", "strength", "guide")
"""Other arguments of `Pipeline.__call__`, for suggestions in errors."""

_OTHER_NAMES = {
    "cfg_scale": "guidance=SCALE",
    "generator": "seed=NUMBER",
    "guidance_scale": "guidance=SCALE",
    "height": "size=(HEIGHT, WIDTH)",
    "negative_prompts": "negative_prompt=TEXT, or a list of one per image",
    "num_images": "one prompt per image, as in [prompt] * 4",
    "num_images_per_prompt": "one prompt per image, as in [prompt] * 4",
    "num_inference_steps": "steps=NUMBER",
    "num_steps": "steps=NUMBER",
    "scheduler": "sampler=NAME",
    "seeds": "seed=NUMBER, or a list of one per image",
    "weaker": "guide=PIPELINE",
    "width": "size=(HEIGHT, WIDTH)",
}
"""Names in other libraries or older versions, with this project's names."""

_MOST_STEPS = 100_000

_KINDS = {int: as_integer, float: number, str: text}


def override(defaults: SamplingConfig, changes: Mapping[str, Any]) -> SamplingConfig:
    """Return the defaults with changes; a change to None keeps the default.

    Raises:
      LiditError: for a name that is not a field of `SamplingConfig`, or a value of another type.
    """
    values = {}
    for name, value in changes.items():
        if name not in _FIELDS:
            raise LiditError(f"there is no sampling setting {name!r}: {_hint(name)}")
        if value is not None:
            values[name] = _KINDS[type(getattr(defaults, name))](name, value)
    return dataclasses.replace(defaults, **values)


def _hint(name: str) -> str:
    if name in _OTHER_NAMES:
        return f"give {_OTHER_NAMES[name]}"
    close = difflib.get_close_matches(name, [*_FIELDS, *_KEYWORDS], n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(_FIELDS)}"


def check_defaults(config: Config) -> None:
    """Raise `LiditError` when a run's diffusion or sampling settings are invalid together.

    `Config` cannot check this, because it depends on the diffusion processes and the samplers.
    """
    if config.training.task != "lidit":
        return
    try:
        check_settings(config.sampling, processes.from_config(config.diffusion))
    except LiditError as error:
        text = str(error)
        text = text if text.startswith("config.") else f"config.sampling: {text}"
        raise LiditError(text) from error


def check_settings(settings: SamplingConfig, process: Process) -> None:
    """Raise `LiditError` for the first setting that is out of range or does not fit the process."""
    if settings.steps > _MOST_STEPS:
        raise LiditError(
            f"steps={settings.steps}: must be {_MOST_STEPS} or less; 20 to 100 are usual"
        )
    solver_tables(process, sampler_of(settings))
    check_scale(settings.guidance)
    methods = METHODS[process.name]
    if settings.guidance_method not in methods:
        raise LiditError(
            f"guidance_method {settings.guidance_method!r} does not fit process {process.name!r}: "
            f"choose one of {quoted(methods)}"
        )
    if not 0 <= settings.guidance_low <= settings.guidance_high <= 1:
        raise LiditError(
            f"guidance_low={settings.guidance_low} and guidance_high={settings.guidance_high}: "
            "must satisfy 0 <= low <= high <= 1"
        )
    ranges = {
        "guidance_rescale": (0, 1),
        "zero_steps": (0, math.inf),
        "apg_parallel": (0, 1),
        "apg_norm": (0, math.inf),
        "apg_momentum": (-1, 1),
    }
    for name, (low, high) in ranges.items():
        if not low <= getattr(settings, name) <= high:
            wanted = f"from {low} to {high}" if high < math.inf else f"{low} or greater"
            raise LiditError(f"{name}={getattr(settings, name)}: must be {wanted}")


def check_scale(scale: float) -> None:
    """Raise `LiditError` for an invalid guidance scale."""
    if not 0 <= scale < math.inf:
        raise LiditError(f"guidance {scale}: must be 0 or greater, and finite; 1 means no guidance")


def sampler_of(settings: SamplingConfig, strength: float = 1.0) -> Sampler:
    """Return the static part of the settings, for which a program is compiled."""
    return Sampler(
        name=settings.sampler,
        steps=settings.steps,
        spacing=settings.spacing,
        shift=settings.shift,
        eta=settings.eta,
        strength=strength,
        cache_interval=settings.cache_interval,
    )


def guidance_of(settings: SamplingConfig, scale: Any) -> Guidance:
    """Return the guidance settings, which are data, with one scale or one per image."""
    return Guidance(
        scale=scale,
        method=settings.guidance_method,
        low=settings.guidance_low,
        high=settings.guidance_high,
        rescale=settings.guidance_rescale,
        zero_steps=settings.zero_steps,
        apg_parallel=settings.apg_parallel,
        apg_norm=settings.apg_norm,
        apg_momentum=settings.apg_momentum,
    )
