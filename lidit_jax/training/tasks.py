"""Training tasks: the text-to-image model, or the image autoencoder."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.schema import Config
from lidit_jax.data.latent_statistics import SavedStatistics
from lidit_jax.data.training_data import TrainingData
from lidit_jax.training.step import Batch, Metrics


@runtime_checkable
class Task(Protocol):
    """Interface of a training task: a model, its loss and its data; numeric methods are pure."""

    data: TrainingData
    """Batches for training and validation."""
    frozen: Any
    """Frozen arrays that every step reads: an argument of the compiled step."""
    provenance: Provenance
    """Provenance to store in checkpoints beside the configuration."""
    training_flops: float | None
    """Operations per sample of forward and backward pass without frozen models, if counted."""

    def frozen_shardings(self, mesh: Mesh) -> Any:
        """Return the shardings of `frozen`: a tree of the same structure."""
        ...

    def encode(self, frozen: Any, batch: Batch) -> Batch:
        """Prepare a batch for the loss with the frozen models, outside of the gradient."""
        ...

    def init(self, key: jax.Array) -> Any:
        """Initialize the (boxed) parameters."""
        ...

    def loss(
        self, params: Any, frozen: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Return the training loss and metrics to log."""
        ...

    def validation_losses(self, params: Any, frozen: Any, batch: Batch) -> Float[Array, " B"]:
        """Return a deterministic loss per sample, to compare steps and runs."""
        ...

    def sample_images(self, params: Any, frozen: Any) -> tuple[np.ndarray, list[str]]:
        """Return sample images, uint8 [B, H, W, 3], and their captions."""
        ...

    def scores(self, params: Any, frozen: Any) -> dict[str, float]:
        """Return scores of how well generated images match their prompts."""
        ...


def make_task(config: Config, saved: SavedStatistics | None = None) -> Task:
    """Create the task of `config.training.task` and prepare its data.

    Args:
      config: of the run.
      saved: latent statistics of the checkpoint that the run resumes or starts from, if any.
    """
    if config.training.task == "vae":
        from lidit_jax.training.autoencoder_task import AutoencoderTask, open_images

        return AutoencoderTask(config, open_images(config))
    from lidit_jax.training.lidit_task import LIDiTTask
    from lidit_jax.training.preparation import prepare

    return LIDiTTask(config, prepare(config, saved))
