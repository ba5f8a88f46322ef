"""What the text-to-image task takes: data that is ready, and the frozen models around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding

from lidit_jax.autoencoders.frozen import FrozenAutoencoder
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.data.contents import Contents
from lidit_jax.data.latent_statistics import LatentStatistics
from lidit_jax.encoders.conditions import FrozenStream, TextConditions
from lidit_jax.models.flops import TextStream
from lidit_jax.parallel.mesh import replicated
from lidit_jax.training.monitoring.scene_scores import SceneScores


class FrozenModels(NamedTuple):
    """What every step reads and nothing changes."""

    unconditional: TextConditions
    """The empty prompt with its instruction: what a dropped caption becomes."""
    encoders: tuple[FrozenStream, ...] = ()
    """The text encoders, where they run during training."""
    autoencoder: Any = ()
    """The weights of the autoencoder, where it encodes pictures during training."""

    def shardings(self, mesh: Mesh) -> FrozenModels:
        """Weights of frozen models stay split as they were loaded; all else is on every device."""
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
    """Everything of a run that is read or computed before its first step."""

    training_records: Any
    """Random access to samples: normalized latents, or pictures that the step encodes, and
    captions, encoded or tokenized."""
    validation_records: Any
    """Random access to samples with normalized latents."""
    streams: tuple[TextStream, ...]
    """Sizes of each encoder's features, with the padding of the captions."""
    frozen: FrozenModels
    statistics: LatentStatistics
    """By which the latents are normalized."""
    autoencoder: FrozenAutoencoder
    """The autoencoder, on the devices of the run."""
    prompts: TextConditions
    """Of the fixed prompts of the image grid."""
    prompt_texts: tuple[str, ...]
    """Those prompts, as they stand below their images."""
    encode: Callable[..., tuple[Any, ...]] | None = None
    """`(frozen.encoders, ids, masks) -> features`, where captions are encoded during training."""
    scores: SceneScores | None = None
    """Scores images on scenes, if the configuration asks for them."""
    contents: Contents | None = None
    """What the training data held; None where it is made up."""
    provenance: Provenance = field(default_factory=Provenance)
    """What a checkpoint must remember of all this."""
