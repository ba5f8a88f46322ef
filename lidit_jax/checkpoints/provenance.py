"""What a trained model must remember beside its weights and its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_BESIDE = {"format", "config"}
"""What stands beside it in the description of a checkpoint; old exports repeat the format too."""
_STORED = {"encoders", "crop", "autoencoder", "latents", "step"}


@dataclass(frozen=True)
class Provenance:
    """The frozen models and the latent statistics that a text-to-image model was trained with.

    An autoencoder was trained with none of them: it has a step at most.
    """

    encoders: tuple[dict[str, Any], ...] = ()
    """Of each stream: source, layer, fingerprint and prefix (see `PromptEncoders.description`)."""
    prefix_lengths: tuple[int, ...] = ()
    """Instruction tokens of each stream, which the network drops after the refiners."""
    autoencoder: str = ""
    """sha256 of the autoencoder's weights, or "pixels"."""
    latent_mean: tuple[float, ...] = ()
    """Of each latent channel, over the training data."""
    latent_deviation: tuple[float, ...] = ()
    """Likewise: the network sees (latent - mean) / deviation."""
    step: int | None = None
    """Updates that the weights have had, where it is known."""
    more: dict[str, Any] = field(default_factory=dict)
    """Entries that this version has no field for: kept as they are, and nothing depends on them."""

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Provenance:
        """Reads the stored form, alone or as a part of a checkpoint's description.

        Raises:
          KeyError: when a part is missing.
        """
        step = stored.get("step")
        more = {key: stored[key] for key in stored if key not in _STORED | _BESIDE}
        if not stored.keys() & _STORED - {"step"}:
            return cls(step=step, more=more)
        return cls(
            tuple(stored["encoders"]),
            tuple(stored["crop"]),
            stored["autoencoder"],
            tuple(stored["latents"]["mean"]),
            tuple(stored["latents"]["deviation"]),
            step,
            more,
        )

    def to_json(self) -> dict[str, Any]:
        """The stored form, which all versions read: without what there is none of."""
        stored = dict(self.more)
        if self.encoders:
            stored |= {
                "encoders": list(self.encoders),
                "crop": list(self.prefix_lengths),
                "autoencoder": self.autoencoder,
                "latents": {
                    "mean": list(self.latent_mean),
                    "deviation": list(self.latent_deviation),
                },
            }
        return stored if self.step is None else stored | {"step": self.step}
