"""Held-out records, repeated if few, so that validation covers all diffusion times equally."""

from __future__ import annotations

from typing import Any

import numpy as np

from lidit_jax.training.diffusion_loss import VALIDATION_TIMES

_ENOUGH_RECORDS = 64
"""Number of held-out records from which each is evaluated at only one time, in turn."""


class RepeatedRecords:
    """Few records, each repeated once per validation time, with new indices.

    The loss at the smallest time outweighs all others, so each time must have as many records.
    """

    def __init__(self, records: Any):
        self._records = records

    def __len__(self) -> int:
        return len(self._records) * VALIDATION_TIMES

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the record with its new index, which determines time and noise."""
        return self._records[index // VALIDATION_TIMES] | {"index": np.int32(index)}


def validation_records(records: Any) -> Any:
    """Return the records to validate on: each once, or at every time if there are few."""
    return records if len(records) >= _ENOUGH_RECORDS else RepeatedRecords(records)
