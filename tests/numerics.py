"""When two implementations compute the same numbers: tolerances that hold on every CPU.

How far float32 is off depends on the order of sums, which differs between instruction sets and
numbers of threads. So the judge is float64, where both implementations must agree almost exactly
(`in_float64`), and ours in float32 is held to what rounding can do to it (`rounding`), never to the
errors that the other one happens to have.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

EPSILON = 2.0**-23
"""Between 1 and the next float32. Rounding once is off by half of it at most."""
BFLOAT16 = 2.0**-7
"""EPSILON of bfloat16."""
SAME = 1e-10
"""Relative error that leaves no doubt in float64: far above its rounding, far below a mistake."""


def rounding(terms: int, sums: int = 1, epsilon: float = EPSILON) -> float:
    """The relative error that float32 may have after sums of so many terms, one upon the other.

    Each term's rounding is off by up to EPSILON / 2 of the sum, in a random direction, so that n of
    them are off by about sqrt(n) / 2 of it. The largest of a thousand numbers is 3 to 4 times
    further off than is usual: hence twice EPSILON, 4 times what is usual.

    Args:
      terms: of the longest sum: the width of a matrix product, the keys of an attention.
      sums: as many as follow each other: about 6 in a transformer block.
      epsilon: of another type than float32. Products of bfloat16 are summed in float32, so that
        only results are rounded: sums of one term.
    """
    return 2 * epsilon * math.sqrt(terms * sums)


def relative_error(ours, exact) -> float:
    """The largest absolute error over the rms of the exact values."""
    ours, exact = (np.asarray(_detached(a), np.float64) for a in (ours, exact))
    assert ours.shape == exact.shape
    return float(np.abs(ours - exact).max() / np.sqrt(np.mean(exact**2)))


def assert_close(ours, exact, tolerance: float) -> None:
    """Says by how many EPSILON it is off, where the relative error exceeds the tolerance."""
    error = relative_error(ours, exact)
    assert error <= tolerance, (
        f"off by {error:.3g} of the rms, {error / EPSILON:.1f} epsilon; "
        f"{tolerance:.3g}, {tolerance / EPSILON:.1f} epsilon, is allowed"
    )


@contextmanager
def in_float64() -> Iterator[None]:
    """Here JAX and PyTorch compute in float64, also where a program names float32.

    Arrays and modules from outside keep their type: see `to_float64` and `Module.double`.
    """
    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(True):
        patch.setattr(torch, "float32", torch.float64)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        patch.setattr(jnp, "float32", jnp.float64)
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


def to_float64(tree):
    """NumPy copies of a tree of arrays, float32 made float64 and the rest as it was."""

    def widen(leaf):
        leaf = np.array(leaf)
        return leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf

    return jax.tree.map(widen, tree)


def _detached(array):
    return array.detach() if isinstance(array, torch.Tensor) else array


def assert_rounded_to_bfloat16(narrow, exact, tolerance: float) -> None:
    """The narrow numbers are the exact ones but for their own rounding, half a step of 8 bits.

    Args:
      narrow: of bfloat16's values.
      exact: float32 or wider.
      tolerance: by how much of the rms the numbers may have differed before they were rounded.
    """
    _within_steps(narrow, exact, 2.0**-8, tolerance)


def assert_same_in_bfloat16(ours, theirs, tolerance: float) -> None:
    """Both were rounded, so that where a boundary lies between them they are a whole step apart.

    Compare with what was rounded (`assert_rounded_to_bfloat16`) where it is at hand.
    """
    _within_steps(ours, theirs, 2.0**-7, tolerance)


def _within_steps(ours, theirs, step: float, tolerance: float) -> None:
    ours, theirs = (np.asarray(a).astype(np.float32) for a in (ours, theirs))
    rms = float(np.sqrt(np.mean(theirs**2)))
    np.testing.assert_allclose(ours, theirs, rtol=step, atol=tolerance * rms)
