"""Random choice of one caption per record and epoch, keyed by seed, at configured rates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64

from lidit_jax.data.keyed_random import keyed_share, subkey
from lidit_jax.errors import LiditError


def choose_columns(
    seed: int,
    records: Int64[np.ndarray, " b"],
    passes: Int64[np.ndarray, " b"],
    rates: Sequence[float],
    usable: Bool[np.ndarray, "b columns"],
) -> Int64[np.ndarray, " b"]:
    """Return the caption column that each record uses in a pass.

    Choices are independent, by the rates of the columns that the record has; each record gets a
    new choice in each pass.

    Args:
      seed: seed of the run.
      records: record numbers.
      passes: number of the pass, per record.
      rates: rate of each column, not negative; only their ratios count.
      usable: which columns each record has.

    Raises:
      LiditError: when a record has none.
    """
    weights = np.where(usable, np.asarray(rates, np.float64), 0.0)
    ends = np.cumsum(weights, axis=1)
    total = ends[:, -1]
    if not (total > 0).all():
        record = records[np.argmin(total > 0)]
        raise LiditError(
            f"record {record} has no caption that may be read: filter the records by the same rules"
        )
    drawn = keyed_share(subkey(seed, "caption"), records, passes) * total
    # The product may be rounded up to the total, past the last column.
    last = weights.shape[1] - 1 - np.argmax(weights[:, ::-1] > 0, axis=1)
    return np.minimum(np.sum(drawn[:, None] >= ends, axis=1), last)
