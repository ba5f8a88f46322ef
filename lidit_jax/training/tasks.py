"""What the loop trains: the text-to-image model, or the autoencoder that it can use."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.schema import Config
from lidit_jax.data.contents import Contents
from lidit_jax.data.latent_statistics import SavedStatistics
from lidit_jax.training.step import Batch, Metrics


@runtime_checkable
class Task(Protocol):
    """A model, its loss and its data. The numeric methods are pure."""

    training_records: Any
    """Random access to training samples."""
    validation_records: Any
    """Random access to held-out samples."""
    frozen: Any
    """Arrays that every step reads and nothing changes: an argument of the compiled step."""
    contents: Contents | None
    """What the training data held, to tell at a resume what has changed; None for made-up data."""
    provenance: Provenance
    """What a checkpoint must remember beside the configuration."""
    training_flops: float | None
    """Operations of forward and backward pass of one sample, frozen models apart, if counted."""

    def frozen_shardings(self, mesh: Mesh) -> Any:
        """Where `frozen` belongs on the mesh: a tree like it."""
        ...

    def encode(self, frozen: Any, batch: Batch) -> Batch:
        """What frozen encoders add to a batch, outside of every gradient."""
        ...

    def init(self, key: jax.Array) -> Any:
        """Fresh (boxed) parameters."""
        ...

    def loss(
        self, params: Any, frozen: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """The training loss and what to log beside it."""
        ...

    def validation_losses(self, params: Any, frozen: Any, batch: Batch) -> Float[Array, " B"]:
        """A loss of each sample, without randomness, to compare steps and runs."""
        ...

    def sample_images(self, params: Any, frozen: Any) -> tuple[np.ndarray, list[str]]:
        """Images to look at, uint8 [B, H, W, 3], and their captions."""
        ...

    def scores(self, params: Any, frozen: Any) -> dict[str, float]:
        """How well generated images show what was asked for, for `config.training.score_every`."""
        ...


def make_task(config: Config, saved: SavedStatistics | None = None) -> Task:
    """The task that `config.training.task` names; prepares its data.

    Args:
      config: of the run.
      saved: latent statistics of the checkpoint that the run resumes or starts from, if any.
    """
    if config.training.task == "vae":
        from lidit_jax.training.autoencoder_task import AutoencoderTask

        return AutoencoderTask(config)
    from lidit_jax.training.lidit_task import LIDiTTask
    from lidit_jax.training.preparation import prepare

    return LIDiTTask(config, prepare(config, saved))
