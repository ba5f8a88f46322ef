"""Mean and standard deviation that normalize latents, computed once and stored with the weights.

They belong to the model: with others, the same weights get other inputs and give other images.
"""

from __future__ import annotations

from collections.abc import Callable
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
"""Number of training latents, from the first on, for the statistics."""


def channel_statistics(latents: Float[np.ndarray, "n h w C"]) -> LatentStatistics:
    """Return mean and std per channel over the first `STATISTICS_RECORDS` records, in float64."""
    values = latents[:STATISTICS_RECORDS].astype(np.float64)
    mean, std = values.mean(axis=(0, 1, 2)), values.std(axis=(0, 1, 2))
    return LatentStatistics(mean, np.maximum(std, 1e-6))


def statistics_to_use(
    latents: Callable[[], Float[np.ndarray, "n h w C"]],
    autoencoder: str,
    saved: SavedStatistics | None,
    choice: str,
    tell: Callable[[str], None],
) -> LatentStatistics:
    """Return the checkpoint's statistics if they apply, else those of the training data.

    Args:
      latents: returns those of the training data, called only when needed.
      autoencoder: fingerprint of the one that encoded them.
      saved: of the checkpoint that the run resumes or starts from, if any.
      choice: `config.data.latent_statistics`, "keep" or "recompute".
      tell: prints a line when a checkpoint's statistics are not used.
    """
    if saved is None:
        return channel_statistics(latents())
    if saved.autoencoder == autoencoder and choice == "keep":
        return saved.statistics
    computed = channel_statistics(latents())
    other = saved.autoencoder != autoencoder
    reason = "it has another autoencoder" if other else "config.data.latent_statistics='recompute'"
    old, new = (_shown(values.mean) for values in (saved.statistics, computed))
    tell(
        f"latent statistics are not those of {saved.place} but computed anew ({reason}): "
        f"mean {old} -> {new}"
    )
    return computed


def _shown(values: Float[np.ndarray, " C"]) -> str:
    return f"({', '.join(f'{value:.3f}' for value in values)})"
