"""Mixing of sources or buckets in fixed proportions, with closed-form counts at any step.

The turns of a part are evenly spaced, like the steps of a line on a pixel grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Int64

_MOST = 2**31
"""Largest sum of weights, so that products of two such numbers fit 64 bits."""


class Proportions:
    """Turns 0, 1, 2, … of several parts, in proportion at all times."""

    def __init__(self, weights: Sequence[Fraction | int]):
        """Set the parts' weights, unchanged or, if their sum is larger, to 2^-30.

        Args:
          weights: not negative, not all 0; a part of weight 0 never has a turn.
        """
        self._weights = _whole(weights)

    def counts(self, turns: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "parts n"]:
        """Return how many of the first `turns` turns each part has.

        Their sum is `turns`. A part's count differs from its share by less than 1 for each part
        that comes before it, and is exact wherever a multiple of all weights is complete.

        Args:
          turns: numbers of turns, from 0.
        """
        result = np.empty((len(self._weights), len(turns)), np.int64)
        rest, total = turns, sum(self._weights)
        for part, weight in enumerate(self._weights):
            result[part] = _share(rest, weight, total) if weight else 0
            rest, total = rest - result[part], total - weight
        return result

    def turns(
        self, numbers: Int64[np.ndarray, " n"]
    ) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Return the part of each turn, and the count of that part's earlier turns."""
        before = self.counts(numbers)
        part = np.argmax(self.counts(numbers + 1) - before, axis=0)
        return part, np.take_along_axis(before, part[None], axis=0)[0]


def _share(turns: Int64[np.ndarray, " n"], weight: int, total: int) -> Int64[np.ndarray, " n"]:
    """Return turns * weight / total, rounded, without products of two large numbers."""
    whole, rest = np.divmod(turns, total)
    return whole * weight + (rest * weight + total // 2) // total


def _whole(weights: Sequence[Fraction | int]) -> list[int]:
    fractions = [Fraction(weight) for weight in weights]
    scale = math.lcm(*(fraction.denominator for fraction in fractions))
    numbers = [int(fraction * scale) for fraction in fractions]
    divisor = math.gcd(*numbers)
    numbers = [number // divisor for number in numbers]
    total = sum(numbers)
    if total <= _MOST:
        return numbers
    # The smallest weight is 1, so that each part has turns; there are far fewer than 2^30 parts.
    return [max(number * (_MOST // 2) // total, 1) if number else 0 for number in numbers]
