"""Named variants of a recipe: `--config=configs/lidit_10b.py:1024px,v5p:8x8x16,2slices`.

A recipe is a list of overrides. Its choices are words after the colon, each with more overrides:
a training stage, a variant of the model, a topology, and the number of slices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ml_collections

from lidit_jax.errors import LiditError
from lidit_jax.hardware.topologies import parse_topology

SLICES = {"2slices": 2, "4slices": 4}
"""Slices joined by the data-center network: copies of the model."""

if TYPE_CHECKING:

    class RecipeConfig(ml_collections.ConfigDict):
        """Recipe dictionary, as type checkers see it: fields of any type."""

        def __getattr__(self, attribute: str) -> Any: ...
else:
    RecipeConfig = ml_collections.ConfigDict


@dataclass(frozen=True)
class Placement:
    """Layout of a run on one topology, for one image size."""

    fsdp: int
    """Devices of a slice that shard the weights; the others hold copies."""
    remat: str
    at_once: int
    """Images per device and microbatch; gradients are accumulated over the batch."""


@dataclass(frozen=True)
class Choices:
    """Choices of one recipe."""

    variants: Mapping[str, Mapping[str, Any]]
    """Fields to override, by word."""
    placements: Mapping[str, Mapping[int, Placement]] = field(default_factory=dict)
    """Layouts by topology and image size."""

    def apply(self, config: RecipeConfig, words: str) -> RecipeConfig:
        """Return the recipe with the overrides of a choice, such as "1024px,v5p:8x8x16".

        Raises:
          LiditError: for an unknown word, with the list of known ones, for several topologies or
            slices without one, and for more devices than images.
        """
        chosen = [word for word in words.split(",") if word]
        known = [*self.variants, *self.placements, *SLICES]
        if unknown := [word for word in chosen if word not in known]:
            raise LiditError(f"this recipe has no choice {unknown[0]!r}, only {', '.join(known)}")
        for kind, words_of_it in (("topology", self.placements), ("number of slices", SLICES)):
            if len(several := [word for word in chosen if word in words_of_it]) > 1:
                raise LiditError(f"{' and '.join(several)}: choose one {kind}")
        if (word := next((w for w in chosen if w in SLICES), "")) and not (
            self.placements.keys() & set(chosen)
        ):
            known = ", ".join(self.placements)
            raise LiditError(f"{word} needs a topology: choose one of {known}")
        slices = 1
        for word in chosen:
            slices = SLICES.get(word, slices)
            for path, value in self.variants.get(word, {}).items():
                _set(config, path, value)
        for word in chosen:
            if word in self.placements:
                self._place(config, word, slices)
        return config

    def _place(self, config: RecipeConfig, topology: str, slices: int) -> None:
        size = config.data.image_size
        placement = self.placements[topology].get(size)
        if placement is None:
            sizes = ", ".join(f"{side}px" for side in self.placements[topology])
            raise LiditError(f"this recipe has no layout of {size} px on {topology}, only {sizes}")
        devices, batch = parse_topology(topology, slices).devices, config.training.batch_size
        if devices > batch:
            raise LiditError(
                f"{slices} slices of {topology} are {devices} devices, more than the {batch} images"
                " of this recipe's batch: use fewer slices"
            )
        config.mesh.replica = slices
        config.mesh.fsdp = placement.fsdp
        config.model.remat = placement.remat
        config.training.accumulation = max(batch // (devices * placement.at_once), 1)


def _set(config: RecipeConfig, path: str, value: Any) -> None:
    *groups, name = path.split(".")
    for group in groups:
        inner = config[group]
        if not isinstance(inner, RecipeConfig):
            raise LiditError(
                f"this recipe sets config.{path}, but {group} is not a group of fields"
            )
        config = inner
    config[name] = value
