"""Mean and standard deviation that normalize latents, computed once and stored with the weights.

They belong to the model: with others, the same weights get other inputs and give other images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lidit_jax.checkpoints.provenance import Provenance


class LatentStatistics(NamedTuple):
    """Mean and standard deviation of each latent channel, in float64."""

    mean: Float[np.ndarray, " C"]
    std: Float[np.ndarray, " C"]


class SavedStatistics(NamedTuple):
    """Statistics of a checkpoint and their origin."""

    statistics: LatentStatistics
    autoencoder: str
    """Fingerprint of the autoencoder whose latents they normalize."""
    place: str
    """Checkpoint that they come from, for messages."""

    @classmethod
    def of(cls, saved: Provenance, place: str) -> SavedStatistics | None:
        """Read the statistics of a checkpoint; None for an autoencoder, which has none."""
        if not saved.latent_mean:
            return None
        mean, std = np.asarray(saved.latent_mean), np.asarray(saved.latent_std)
        return cls(LatentStatistics(mean, std), saved.autoencoder, place)


STATISTICS_RECORDS = 4096
"""Number of training latents, of the records with the smallest numbers, for the statistics."""


def channel_statistics(latents: Iterable[Float[np.ndarray, "_n _h _w C"]]) -> LatentStatistics:
    """Return mean and standard deviation per channel over all pixels, in float64.

    Args:
      latents: in batches, each of its own height and width; at least one latent.
    """
    count, total, squares = 0, 0.0, 0.0
    for batch in latents:
        values = batch.astype(np.float64).reshape(-1, batch.shape[-1])
        count += len(values)
        total = total + values.sum(axis=0)
        squares = squares + np.square(values).sum(axis=0)
    mean = np.asarray(total) / count
    variance = np.asarray(squares) / count - np.square(mean)
    return LatentStatistics(mean, np.sqrt(np.maximum(variance, 1e-12)))


def statistics_to_use(
    computed: Callable[[], LatentStatistics],
    autoencoder: str,
    saved: SavedStatistics | None,
    choice: str,
    tell: Callable[[str], None],
) -> LatentStatistics:
    """Return the checkpoint's statistics if they apply, else those of the training data.

    Args:
      computed: returns those of the training data, called only when needed.
      autoencoder: fingerprint of the one that encoded them.
      saved: of the checkpoint that the run resumes or starts from, if any.
      choice: `config.data.latent_statistics`, "keep" or "recompute".
      tell: prints a line when a checkpoint's statistics are not used.
    """
    if saved is None:
        return computed()
    if saved.autoencoder == autoencoder and choice == "keep":
        return saved.statistics
    new = computed()
    other = saved.autoencoder != autoencoder
    reason = "it has another autoencoder" if other else "config.data.latent_statistics='recompute'"
    tell(
        f"latent statistics are not those of {saved.place} but computed anew ({reason}): "
        f"mean {_shown(saved.statistics.mean)} -> {_shown(new.mean)}"
    )
    return new


def _shown(values: Float[np.ndarray, " C"]) -> str:
    return f"({', '.join(f'{value:.3f}' for value in values)})"
