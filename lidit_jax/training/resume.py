"""Checks that a run can resume with the current configuration and frozen models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lidit_jax.checkpoints.orbax_weights import explain_read_errors
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.checks import check
from lidit_jax.config.schema import Config
from lidit_jax.data.source_opening import SOURCES
from lidit_jax.encoders.locations import PACKAGED_ENCODERS, content_digests, locate_encoder
from lidit_jax.errors import LiditError
from lidit_jax.training.tasks import Task

# Fields that a resumed run may change: any other change would make it another run.
_MAY_CHANGE = ("training.steps", "training.log_every", "training.eval_every")
_MAY_CHANGE += ("training.image_every", "training.checkpoint_every", "training.keep_checkpoints")
_MAY_CHANGE += ("vae.tile", "training.prompts", "mesh", "sampling", "data.cache_dir", "model.dtype")
_MAY_CHANGE += ("training.keep_every", "training.keep_best", "training.watchdog_minutes")
_MAY_CHANGE += ("training.stop_after_skipped", "training.accumulation", "training.init_")
_MAY_CHANGE += ("model.remat", "model.scan_unroll", "optimizer.schedule", "optimizer.decay_steps")
_MAY_CHANGE += ("data.text_features", "data.encode_steps", "training.quantization")
_MAY_CHANGE += ("data.latents", "data.workers", "data.reading", "data.cache_missing")
_MAY_CHANGE += ("data.text_storage",)
_MAY_CHANGE += ("training.best_by", "training.score_every", "training.score_prompts")
_MAY_CHANGE += ("training.barrier_minutes", "training.profile", "training.tracker")
_MAY_CHANGE += ("training.local_", "data.latent_statistics")
# Compared by content, see `check_same_models`.
_MAY_CHANGE += ("vae.source",)

# Fields that another run, initialized from this one's weights and moments, may change.
_TAKEN_OVER = ("optimizer.learning_rate", "optimizer.warmup_steps", "optimizer.weight_decay")
_TAKEN_OVER += ("optimizer.clip_norm",)

_PLACES = ("data.path", "data.mixture", "encoders.sources")
"""Fields with paths, compared after normalization."""


def stored_provenance(metadata: dict[str, Any], checkpoint: Path) -> Provenance:
    """Return the provenance that a checkpoint of this run stores.

    Args:
      metadata: the checkpoint's metadata.
      checkpoint: its folder.

    Raises:
      LiditError: when a part of it is missing.
    """
    with explain_read_errors(checkpoint):
        check(Config.from_dict(metadata["config"]))
        return Provenance.from_json(metadata)


def check_same_run(config: Config, metadata: dict[str, Any], workdir: Path) -> None:
    """Raise `LiditError` if the configuration would make it another run."""
    before = flat_fields(check(Config.from_dict(metadata["config"])).to_dict())
    now = flat_fields(config.to_dict())
    for name, value in now.items():
        if name.startswith(_MAY_CHANGE) or before[name] == value:
            continue
        if name in _PLACES and _places(before[name]) == _places(value):
            continue
        if name == "encoders.sources" and _same_encoders(value, metadata.get("encoders", [])):
            continue
        if name == "data.path" and not os.path.exists(os.path.expanduser(before[name])):
            continue  # moved: its contents are compared, and changes are reported
        remedy = "name another workdir, or set it back"
        if name in _TAKEN_OVER:
            remedy = (
                f"set it back, or go on in another workdir with --config.training.init_from="
                f"{workdir} --config.training.init_optimizer=true, which takes over weights and "
                "moments"
            )
        if name == "optimizer.freeze":
            remedy = (
                "set it back, or begin a new stage in another workdir with "
                f"--config.training.init_from={workdir}"
            )
        held = f"config.{name}={before[name]!r}, not {value!r}"
        raise LiditError(f"{workdir} holds a run with {held}: {remedy}")


def check_same_models(task: Task, saved: Provenance, workdir: Path) -> None:
    """Raise `LiditError` if a frozen model's files differ from those at the run's start."""
    for name in ("encoders", "autoencoder"):
        if _content(getattr(saved, name)) != _content(getattr(task.provenance, name)):
            raise LiditError(
                f"{workdir} holds a run with another {name.removesuffix('s')} of the same name: "
                "put its files back, or name another workdir"
            )


def _places(value: str | Sequence[str]) -> list[str]:
    """Normalize a field's value: local paths become absolute, other values are unchanged.

    A path may follow the name of a source: "folder:photos".
    """

    def place(text: str) -> str:
        name, _, rest = text.partition(":")
        if rest and name in SOURCES:
            return f"{name}:{place(rest)}"
        path = os.path.expanduser(text)
        here = os.path.exists(path) and text not in PACKAGED_ENCODERS
        return os.path.realpath(path) if here else text.rstrip("/")

    return [place(text) for text in ([value] if isinstance(value, str) else value)]


def _same_encoders(sources: Sequence[str], trained_with: Sequence[dict[str, Any]]) -> bool:
    """Return whether the encoders have the same content as the run's, wherever they are."""
    return len(sources) == len(trained_with) and all(
        content_digests(locate_encoder(source)).items() <= stream["fingerprint"].items()
        for source, stream in zip(sources, trained_with, strict=True)
    )


def _content(model: Any) -> Any:
    """Return the identity of a frozen model, without its path."""
    if isinstance(model, str):
        return model
    return [{k: v for k, v in stream.items() if k != "source"} for stream in model]


def flat_fields(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested configuration to full names, such as "model.depth"."""
    flat = {}
    for name, value in values.items():
        nested = flat_fields(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        flat.update(nested if nested is not None else {f"{prefix}{name}": value})
    return flat
