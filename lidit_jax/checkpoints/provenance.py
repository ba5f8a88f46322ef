"""Facts stored with a trained model besides its weights and configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lidit_jax.encoders.layer_choice import layer_count

_BESIDE = {"format", "config"}
"""Other keys of a checkpoint's description; old exports repeat the format too."""
_MODELS = {"encoders", "prefix_lengths", "autoencoder", "latents"}
_STREAM = ("source", "layer", "fingerprint", "prefix")
_DATA = ("records", "fingerprint")
_STORED = _MODELS | {"data", "step"}


@dataclass(frozen=True)
class Provenance:
    """Frozen models and latent statistics that a text-to-image model was trained with.

    An autoencoder was trained with none of them: it has at most a step.
    """

    encoders: tuple[dict[str, Any], ...] = ()
    """Source, layer, fingerprint and prefix per stream (see `PromptEncoders.description`); several
    layers are a list."""
    prefix_lengths: tuple[int, ...] = ()
    """Instruction tokens per stream, which the network drops after the refiners."""
    autoencoder: str = ""
    """sha256 of the autoencoder's weights, or "pixels"."""
    latent_mean: tuple[float, ...] = ()
    """Mean per latent channel, over the training data."""
    latent_std: tuple[float, ...] = ()
    """Standard deviation per latent channel: the network uses (latent - mean) / std."""
    data: dict[str, Any] | None = None
    """Number and fingerprint of the training records, to report changes at a resume; None in older
    checkpoints."""
    step: int | None = None
    """Number of updates of the weights; None if unknown."""
    more: dict[str, Any] = field(default_factory=dict)
    """Entries that this version has no field for, preserved but not used."""

    @property
    def layer_counts(self) -> tuple[int, ...]:
        """Number of encoder layers per stream."""
        return tuple(layer_count(stream["layer"]) for stream in self.encoders)

    @classmethod
    def from_json(cls, stored: Any) -> Provenance:
        """Read the stored form, by itself or as part of a checkpoint's description.

        Raises:
          KeyError: when a part is missing.
          ValueError: when parts are inconsistent.
          AttributeError: when it is no mapping.
        """
        step, data = stored.get("step"), stored.get("data")
        if data is not None:
            _require(data, _DATA)
        more = {key: stored[key] for key in stored if key not in _STORED | _BESIDE}
        if not stored.keys() & _MODELS:
            return cls(data=data, step=step, more=more)
        encoders, prefix_lengths, latents = (
            stored[name] for name in ("encoders", "prefix_lengths", "latents")
        )
        for stream in encoders:
            _require(stream, _STREAM)
        mean, std = tuple(latents["mean"]), tuple(latents["std"])
        if len(encoders) != len(prefix_lengths) or len(mean) != len(std):
            raise ValueError(
                f"it has {len(encoders)} encoders with {len(prefix_lengths)} prefix lengths, and "
                f"latents of {len(mean)} means with {len(std)} standard deviations"
            )
        return cls(
            encoders=tuple(encoders),
            prefix_lengths=tuple(prefix_lengths),
            autoencoder=stored["autoencoder"],
            latent_mean=mean,
            latent_std=std,
            data=data,
            step=step,
            more=more,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the stored form, without empty entries."""
        stored = dict(self.more)
        if self.encoders:
            stored |= {
                "encoders": list(self.encoders),
                "prefix_lengths": list(self.prefix_lengths),
                "autoencoder": self.autoencoder,
                "latents": {"mean": list(self.latent_mean), "std": list(self.latent_std)},
            }
        beside = {"data": self.data, "step": self.step}
        return stored | {name: value for name, value in beside.items() if value is not None}


def _require(part: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise `KeyError` for the first name that a part lacks."""
    for name in names:
        if name not in part:
            raise KeyError(name)
