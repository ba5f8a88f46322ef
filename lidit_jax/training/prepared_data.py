"""Inputs of the text-to-image task: prepared data and frozen models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding

from lidit_jax.autoencoders.frozen import FrozenAutoencoder
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.data.latent_statistics import LatentStatistics
from lidit_jax.data.training_data import TrainingData
from lidit_jax.encoders.conditions import FrozenStream, TextConditions
from lidit_jax.models.flops import TextStream
from lidit_jax.parallel.mesh import replicated
from lidit_jax.training.monitoring.scene_scores import SceneScores


class FrozenModels(NamedTuple):
    """Frozen arrays that every step reads."""

    unconditional: TextConditions
    """Conditions of the empty prompt with its instruction, which replace a dropped caption."""
    encoders: tuple[FrozenStream, ...] = ()
    """Weights of the text encoders, if they run during training."""
    autoencoder: Any = ()
    """Weights of the autoencoder, if it encodes images during training."""

    def shardings(self, mesh: Mesh) -> FrozenModels:
        """Return shardings: frozen weights stay sharded as loaded, all else is replicated."""
        whole = replicated(mesh)

        def kept(leaf: jax.Array) -> NamedSharding:
            return leaf.sharding if isinstance(leaf.sharding, NamedSharding) else whole

        return FrozenModels(
            jax.tree.map(lambda _: whole, self.unconditional),
            tuple(
                FrozenStream(
                    jax.tree.map(kept, stream.params),
                    jax.tree.map(lambda _: whole, stream.instruction),
                )
                for stream in self.encoders
            ),
            jax.tree.map(kept, self.autoencoder),
        )


@dataclass(frozen=True)
class PreparedData:
    """Data and models that are read or computed before a run's first step."""

    data: TrainingData
    """Batches of normalized latents, or of images that the step encodes, and of captions, encoded
    or tokenized."""
    streams: tuple[TextStream, ...]
    """Sizes of each encoder's features, with the padding of the captions."""
    frozen: FrozenModels
    statistics: LatentStatistics
    """Mean and standard deviation that normalize the latents."""
    autoencoder: FrozenAutoencoder
    """The autoencoder, on the devices of the run."""
    prompts: TextConditions
    """Conditions of the fixed prompts of the image grid."""
    prompt_texts: tuple[str, ...]
    """Those prompts, as captions of their images."""
    encode: Callable[..., tuple[Any, ...]] | None = None
    """Function `(frozen.encoders, ids, masks) -> features`, if captions are encoded online."""
    scores: SceneScores | None = None
    """Scorer of images on scenes, if the configuration enables it."""
    provenance: Provenance = field(default_factory=Provenance)
    """Provenance to store in checkpoints."""
