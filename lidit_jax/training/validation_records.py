"""Held-out samples, each seen often enough that the validation loss covers all times equally."""

from __future__ import annotations

from typing import Any

import numpy as np

from lidit_jax.training.diffusion_loss import VALIDATION_TIMES

_ENOUGH_RECORDS = 64
"""From here on each held-out record is evaluated at one time only, in turn."""


class RepeatedRecords:
    """Few records, each as often as there are times of validation, with numbers of their own.

    The loss at the smallest time outweighs all others, so each time must have as many records.
    """

    def __init__(self, records: Any):
        self._records = records

    def __len__(self) -> int:
        return len(self._records) * VALIDATION_TIMES

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record, with the new number, which decides time and noise."""
        return self._records[index // VALIDATION_TIMES] | {"index": np.int32(index)}


def validation_records(records: Any) -> Any:
    """The records that validation evaluates: all of them, and each at every time if few."""
    return records if len(records) >= _ENOUGH_RECORDS else RepeatedRecords(records)
