"""Turns of several parts in given proportions: who has had how many is known at once, at any time.

The turns of a part are spread evenly, as the steps of a line on a grid of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Int64

_MOST = 2**31
"""Largest sum of weights: products of two such numbers fit 64 bits."""


class Proportions:
    """Turns 0, 1, 2, … of several parts, each of which has its share at all times."""

    def __init__(self, weights: Sequence[Fraction | int]):
        """Takes the parts' weights, as they are or, where their sum is larger, to 2^-30.

        Args:
          weights: not negative, not all 0; a part without weight never has a turn.
        """
        self._weights = _whole(weights)

    def counts(self, turns: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "parts n"]:
        """How many of the first `turns` turns each part has.

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
        """Whose turn each of these is, and which one of that part, counted from 0."""
        before = self.counts(numbers)
        part = np.argmax(self.counts(numbers + 1) - before, axis=0)
        return part, np.take_along_axis(before, part[None], axis=0)[0]


def _share(turns: Int64[np.ndarray, " n"], weight: int, total: int) -> Int64[np.ndarray, " n"]:
    """turns * weight / total, rounded, without the product of two large numbers."""
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
    # The least weight is 1, so that no part is forgotten; there are far fewer than 2^30 parts.
    return [max(number * (_MOST // 2) // total, 1) if number else 0 for number in numbers]
