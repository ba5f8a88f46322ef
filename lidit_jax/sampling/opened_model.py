"""Trained model before its weights are loaded, to validate requests early."""

from __future__ import annotations

import functools
from typing import Any

from lidit_jax.autoencoders.frozen import FrozenAutoencoder, load_frozen_autoencoder
from lidit_jax.checkpoints.opener import SavedModel
from lidit_jax.config.checks import check_size_embedding
from lidit_jax.config.schema import SamplingConfig
from lidit_jax.diffusion import process as processes
from lidit_jax.diffusion.samplers import compatible_samplers
from lidit_jax.errors import LiditError
from lidit_jax.sampling.settings import check_settings, override


class OpenedModel:
    """Configuration, provenance and autoencoder of a text-to-image checkpoint.

    Network and text encoders, which may take minutes, are loaded by `Pipeline.from_checkpoint`.

    Attributes:
      saved: the model on disk.
      config: the run's configuration.
      provenance: other facts stored in the checkpoint: encoders, autoencoder, statistics.
      process: the diffusion process of its training.
    """

    def __init__(self, saved: SavedModel):
        """Wrap the result of `open_model`.

        Raises:
          LiditError: when it is not a text-to-image model.
        """
        self.saved, self.config, self.provenance = saved, saved.config, saved.provenance
        if self.config.training.task != "lidit":
            raise LiditError(
                f"{self.saved.folder} holds an autoencoder: name a text-to-image checkpoint"
            )
        self.process = processes.from_config(self.config.diffusion)

    @functools.cached_property
    def autoencoder(self) -> FrozenAutoencoder:
        """Autoencoder of its latents.

        Raises:
          LiditError: when it is missing, or not the one that the model was trained with.
        """
        config = self.config.vae
        autoencoder = load_frozen_autoencoder(config, self.saved.own_autoencoder)
        check_size_embedding(self.config, autoencoder.downsample)
        if autoencoder.fingerprint != self.provenance.autoencoder:
            raise LiditError(
                f"config.vae.source={config.source!r} is not the autoencoder of this checkpoint: "
                "restore the one it was trained with"
            )
        return autoencoder

    @property
    def size_step(self) -> int:
        """Pixels of which each side of an image must be a multiple."""
        return self.autoencoder.downsample * self.config.model.patch

    @property
    def samplers(self) -> tuple[str, ...]:
        """Names of the samplers that support its diffusion process."""
        return compatible_samplers(self.process)

    def settings(self, **changes: Any) -> SamplingConfig:
        """Return the checkpoint's sampling settings with changes (None: no change), validated.

        Raises:
          LiditError: for an unknown setting, or a value that does not fit the checkpoint.
        """
        settings = override(self.config.sampling, changes)
        check_settings(settings, self.process)
        return settings

    def check_guide(self, guide: OpenedModel) -> None:
        """Raise `LiditError` unless another model can guide this one.

        Both must have the same latents, times, kind of prediction and prompt encoding.
        """
        theirs, ours = guide.provenance.to_json(), self.provenance.to_json()
        for name in ("encoders", "autoencoder", "latents"):
            if theirs[name] != ours[name]:
                raise LiditError(
                    f"the guide model has other {name}: use an earlier checkpoint of the same run"
                )
        ours, theirs = self.process, guide.process
        if (theirs.prediction, theirs.name) != (ours.prediction, ours.name):
            raise LiditError(
                "the guide model has another prediction space: use one of the same run"
            )
