"""Digests of a dataset's records, to report what changed since a checkpoint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt64

MOST_DIGESTS = 10**7
"""Number of records up to which digests of each are kept: 16 bytes each."""


class Difference(NamedTuple):
    """Numbers of records that were added, removed or changed between two versions of a dataset."""

    added: int
    removed: int
    changed: int


@dataclass(frozen=True)
class Contents:
    """Number and digests of a source's records."""

    records: int
    fingerprint: str
    """Fingerprint of the records, independent of their order and location."""
    digests: UInt64[np.ndarray, "n 2"] | None = field(default=None, compare=False, repr=False)
    """Digests of each record's name and content, sorted; None if records have no names."""

    @classmethod
    def of_digests(cls, digests: UInt64[np.ndarray, "n 2"]) -> Contents:
        """Sort the digests of names and contents, in any order of the records."""
        digests = digests[np.lexsort((digests[:, 1], digests[:, 0]))]
        fingerprint = hashlib.sha256(digests.astype("<u8").tobytes()).hexdigest()[:32]
        return cls(len(digests), fingerprint, digests)

    @property
    def description(self) -> dict[str, Any]:
        """Description that is stored in a checkpoint."""
        return {"records": self.records, "fingerprint": self.fingerprint}


def difference(before: UInt64[np.ndarray, "n 2"], now: UInt64[np.ndarray, "m 2"]) -> Difference:
    """Count the records added, removed and changed between two versions of a dataset.

    Args:
      before: digests of each record's name and content, with distinct names.
      now: likewise.
    """
    _, first, second = np.intersect1d(
        before[:, 0], now[:, 0], assume_unique=True, return_indices=True
    )
    changed = int(np.sum(before[first, 1] != now[second, 1]))
    return Difference(len(now) - len(second), len(before) - len(first), changed)
