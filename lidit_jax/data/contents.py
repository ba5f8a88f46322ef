"""What a data set held when a checkpoint was written, to tell later what has changed since."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt64

from lidit_jax.data.image_source import ImageSource


class Difference(NamedTuple):
    """Records of the later data set that the earlier one lacks, and so on."""

    added: int
    removed: int
    changed: int


@dataclass(frozen=True)
class Contents:
    """The records of a source, without the records."""

    records: int
    fingerprint: str
    """The same for the same records, whatever their order and wherever they lie."""
    digests: UInt64[np.ndarray, "n 2"] | None = field(default=None, compare=False, repr=False)
    """Of name and content of each record, sorted; None where records have no names."""

    @classmethod
    def of(cls, source: ImageSource) -> Contents:
        """What a source holds now."""
        digests = source.digests()
        if digests is None:
            return cls(len(source), _hexadecimal(repr(source).encode()))
        digests = digests[np.lexsort((digests[:, 1], digests[:, 0]))]
        return cls(len(source), _hexadecimal(digests.astype("<u8").tobytes()), digests)

    @property
    def description(self) -> dict[str, Any]:
        """What a checkpoint remembers."""
        return {"records": self.records, "fingerprint": self.fingerprint}


def difference(before: UInt64[np.ndarray, "n 2"], now: UInt64[np.ndarray, "m 2"]) -> Difference:
    """Counts what has come, gone and changed from one data set to the next.

    Args:
      before: digests of each record's name and content; no name comes twice.
      now: likewise.
    """
    _, first, second = np.intersect1d(
        before[:, 0], now[:, 0], assume_unique=True, return_indices=True
    )
    changed = int(np.sum(before[first, 1] != now[second, 1]))
    return Difference(len(now) - len(second), len(before) - len(first), changed)


def _hexadecimal(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
