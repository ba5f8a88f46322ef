"""What a source of captioned images is: the protocol that it follows, and what it declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt64

from lidit_jax.config.schema import Config


@runtime_checkable
class ImageSource(Protocol):
    """Random access to captioned images: a pure function of the index."""

    def __len__(self) -> int:
        """Number of records."""
        ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`{"image": uint8 [H, W, 3], "caption": str, "index": int}`."""
        ...

    @property
    def distinct_captions(self) -> int:
        """After so many records the captions repeat: record i says the same as i + this number."""
        ...

    def caption(self, index: int) -> str:
        """The caption of a record, without making its image."""
        ...

    def __repr__(self) -> str:
        """Everything that decides the records on this machine: it names the prepared data."""
        ...

    def digests(self) -> UInt64[np.ndarray, "n 2"] | None:
        """Of each record a digest of its name and one of its content, the same on every machine.

        None where `__repr__` says all there is to say.
        """
        ...


@dataclass(frozen=True)
class SourceKind:
    """A value of `config.data.source`."""

    open: Callable[[Config, str], ImageSource]
    """From a configuration and a split ("train" or "heldout") to its records."""
    has_truth: bool = False
    """Whether images can be scored against scenes whose truth is known."""
    validation: str = "validation loss"
    """What to call the loss on its "heldout" split."""
    prompts: tuple[str, ...] = ()
    """What the image grid shows where the user names nothing; () for captions of its records."""


def captions_of(source: ImageSource, indices: range) -> list[str]:
    """The captions of some records; here, so that processes that make them load little else."""
    return [source.caption(i) for i in indices]


class Subset:
    """Some records of a source, renumbered from 0."""

    def __init__(self, source: ImageSource, indices: range):
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record, with its new number."""
        return self._source[self._indices[index]] | {"index": index}

    @property
    def distinct_captions(self) -> int:
        """Its length: every record may say something else."""
        return len(self)

    def caption(self, index: int) -> str:
        """The caption of a record."""
        return self._source.caption(self._indices[index])

    def digests(self) -> UInt64[np.ndarray, "n 2"] | None:
        """Those of its records."""
        digests = self._source.digests()
        return None if digests is None else digests[self._indices]

    def __repr__(self) -> str:
        # It names prepared data, which version 0.1 has kept as that of a "Part".
        return f"Part({self._source!r}, {self._indices!r})"
