"""Protocol of sources of captioned images, and the description of a kind of source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt64

from lidit_jax.config.schema import Config


@runtime_checkable
class ImageSource(Protocol):
    """Random access to captioned images, as a pure function of the index."""

    def __len__(self) -> int:
        """Return the number of records."""
        ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return `{"image": uint8 [H, W, 3], "caption": str, "index": int}`."""
        ...

    @property
    def distinct_captions(self) -> int:
        """Period of the captions: record i has the caption of record i + this number."""
        ...

    def caption(self, index: int) -> str:
        """Return the caption of a record, without making its image."""
        ...

    def __repr__(self) -> str:
        """Return a text that identifies the records on this machine, and names cached data."""
        ...

    def digests(self) -> UInt64[np.ndarray, "n 2"] | None:
        """Return digests of each record's name and content, the same on every machine.

        None if `__repr__` fully determines the records.
        """
        ...


@dataclass(frozen=True)
class SourceKind:
    """Description of a value of `config.data.source`."""

    open: Callable[[Config, str], ImageSource]
    """Function from a configuration and a split ("train" or "heldout") to the source."""
    has_truth: bool = False
    """Whether images can be scored against scenes whose truth is known."""
    validation: str = "validation loss"
    """Label of the loss on its "heldout" split."""
    prompts: tuple[str, ...] = ()
    """Default prompts of the image grid; () for captions of its records."""


def captions_of(source: ImageSource, indices: range) -> list[str]:
    """Return the captions of some records; here to keep the imports of worker processes small."""
    return [source.caption(i) for i in indices]


class Subset:
    """Subset of a source's records, renumbered from 0."""

    def __init__(self, source: ImageSource, indices: range):
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the record, with its new index."""
        return self._source[self._indices[index]] | {"index": index}

    @property
    def distinct_captions(self) -> int:
        """Number of records, because every caption may differ."""
        return len(self)

    def caption(self, index: int) -> str:
        """Return the caption of a record."""
        return self._source.caption(self._indices[index])

    def digests(self) -> UInt64[np.ndarray, "n 2"] | None:
        """Return the digests of its records."""
        digests = self._source.digests()
        return None if digests is None else digests[self._indices]

    def __repr__(self) -> str:
        # It names cached data, which version 0.1 stored under the name "Part".
        return f"Part({self._source!r}, {self._indices!r})"
