"""Which of a record's captions is read in each pass: a keyed choice at given rates."""

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
    """The caption column that each record uses in a pass.

    Each is drawn on its own, at the rates of those columns that the record has; the same record
    draws anew in each pass.

    Args:
      seed: of the run.
      records: their numbers.
      passes: which pass over the records this is, for each.
      rates: of each column, not negative; only their ratios count.
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
    # The product may be rounded up to the total itself, behind the last column.
    last = weights.shape[1] - 1 - np.argmax(weights[:, ::-1] > 0, axis=1)
    return np.minimum(np.sum(drawn[:, None] >= ends, axis=1), last)
