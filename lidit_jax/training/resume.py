"""Whether a workdir's run may go on with today's configuration and models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.checks import check
from lidit_jax.config.schema import Config
from lidit_jax.errors import LiditError
from lidit_jax.training.tasks import Task

# What a resumed run may change: everything else would silently make it another run.
_MAY_CHANGE = ("training.steps", "training.log_every", "training.eval_every")
_MAY_CHANGE += ("training.image_every", "training.checkpoint_every", "training.keep_checkpoints")
_MAY_CHANGE += ("vae.tile", "training.prompts", "mesh", "sampling", "data.cache_dir", "model.dtype")
_MAY_CHANGE += ("training.keep_every", "training.keep_best", "training.watchdog_minutes")
_MAY_CHANGE += ("training.stop_after_skipped", "training.accumulation", "training.init_")
_MAY_CHANGE += ("model.remat", "model.scan_unroll", "optimizer.schedule", "optimizer.decay_steps")
_MAY_CHANGE += ("data.text_features", "data.encode_steps", "training.matmul")
_MAY_CHANGE += ("training.best_by", "training.score_every", "training.score_prompts")
_MAY_CHANGE += ("training.barrier_minutes", "training.profile", "training.tracker")
_MAY_CHANGE += ("training.local_",)


def refuse_another_run(config: Config, metadata: dict[str, Any], workdir: Path) -> None:
    """Refuses to go on with a configuration that would make it another run."""
    before = flat_fields(check(Config.from_dict(metadata["config"])).to_dict())
    now = flat_fields(config.to_dict())
    for name, value in now.items():
        if before[name] != value and not name.startswith(_MAY_CHANGE):
            raise LiditError(
                f"{workdir} holds a run with config.{name}={before[name]!r}, not {value!r}: name "
                "another workdir, or set it back"
            )


def refuse_other_models(task: Task, metadata: dict[str, Any], workdir: Path) -> None:
    """Refuses to go on when a frozen model's files are no longer those the run began with."""
    saved = Provenance.from_json(metadata)
    for name in ("encoders", "autoencoder"):
        if getattr(saved, name) != getattr(task.provenance, name):
            raise LiditError(
                f"{workdir} holds a run with another {name.removesuffix('s')} of the same name: "
                "put its files back, or name another workdir"
            )


def flat_fields(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a nested configuration by their full names, such as "model.depth"."""
    flat = {}
    for name, value in values.items():
        nested = flat_fields(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        flat.update(nested if nested is not None else {f"{prefix}{name}": value})
    return flat
