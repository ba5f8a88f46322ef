"""Fit of the roofline's two constants to published runs, with cross-validated errors.

`fit` minimizes the squared logarithms of predicted over published seconds. Every published run is
then predicted twice by held-out constants: fitted without this run, and fitted without its whole
family (the same chips and kind of model), which is the case of a new model on new chips. Note that
the form of the formula was written with the v5p rows known, before the rows of v4, v5e and v6e were
added; those changed nothing but the two constants. That reductions of gradients are not overlapped
(`roofline.Terms.gradients_wait`) was added last, from compiled programs and not from a row: the
largest errors held out by family fell on v5p and v6e and rose by 2 points at most on the others.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lidit_jax.planning.published_runs import PublishedRun, published_runs
from lidit_jax.planning.roofline import Constants, terms


@dataclass(frozen=True)
class HeldOut:
    """A published run with its two held-out prediction errors."""

    run: PublishedRun
    without_run: float
    """Predicted over published seconds, minus 1, with constants fitted to all other runs."""
    without_family: float
    """The same with constants fitted to the other families only."""


def fit(runs: Sequence[PublishedRun]) -> Constants:
    """Fit the constants to runs by least squares of log step times."""
    from scipy.optimize import least_squares

    parts = [(terms(run.work, run.topology, run.split), run.seconds) for run in runs]

    def errors(values: np.ndarray) -> list[float]:
        constants = Constants(*values)
        return [math.log(part.at(constants).step / seconds) for part, seconds in parts]

    found = least_squares(errors, x0=(0.8, 0.5), bounds=((0.3, 0.0), (1.0, 1.0)))
    return Constants(*(round(float(value), 3) for value in found.x))


def error(run: PublishedRun, constants: Constants) -> float:
    """Return predicted over published seconds, minus 1."""
    return terms(run.work, run.topology, run.split).at(constants).step / run.seconds - 1


@functools.cache
def held_out() -> tuple[HeldOut, ...]:
    """Return both held-out errors of every run."""
    runs = published_runs()
    families = {
        family: fit([run for run in runs if run.family != family])
        for family in {run.family for run in runs}
    }
    return tuple(
        HeldOut(
            run,
            error(run, fit([other for other in runs if other is not run])),
            error(run, families[run.family]),
        )
        for run in runs
    )


def summary() -> list[tuple[str, int, float, float, float]]:
    """Return per family: number of runs, median and largest absolute error with the run held out,
    and the largest with the family held out."""
    rows = []
    for family in dict.fromkeys(found.run.family for found in held_out()):
        found = [one for one in held_out() if one.run.family == family]
        alone = [abs(one.without_run) for one in found]
        together = [abs(one.without_family) for one in found]
        rows.append((family, len(found), statistics.median(alone), max(alone), max(together)))
    return rows
