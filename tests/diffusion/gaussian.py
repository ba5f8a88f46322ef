"""How far samplers miss a Gaussian, exactly: no random number is drawn.

When all data are drawn from N(0, DEVIATION^2), the best network is known and linear, and samplers
are linear as well. So the variance of their results follows from their tables of coefficients.
"""

import numpy as np

from lidit_jax.diffusion.process import DDPM, Process, RectifiedFlow
from lidit_jax.diffusion.samplers import Sampler, compatible_samplers, solver_tables
from lidit_jax.diffusion.solvers import ANCHOR, OLDER, PREVIOUS, X0, X

DEVIATION = 0.5
# So many timesteps that rounding to whole ones does not limit the order.
FINE_DDPM = DDPM(timesteps=1_000_000, beta_start=1e-7, beta_end=2e-5)
PROCESSES = {"ddpm": FINE_DDPM, "flow": RectifiedFlow()}


def moments(process: Process, sampler: Sampler, mean: float = 0.0) -> tuple[float, float]:
    """Mean and standard deviation of the results, of data of this mean and DEVIATION.

    Sampling starts from the distribution that the process has at the first time.
    """
    grid, table = solver_tables(process, sampler)
    variance = grid.signal**2 * DEVIATION**2 + grid.sigma**2
    expected = np.array([grid.signal[0] * mean, 0, 0, 0])
    gains = grid.signal * DEVIATION**2 / variance  # the best x0 is gain * x_t
    covariance = np.zeros((4, 4))  # of the sample, the anchor, and two predictions before
    covariance[0, 0] = variance[0]
    for row, at in enumerate(table.at):
        constant = mean * (1 - gains[at] * grid.signal[at])  # the best x0 is gain * x_t + constant
        see = np.zeros((5, 4))
        see[X, 0] = see[ANCHOR, 1] = see[PREVIOUS, 2] = see[OLDER, 3] = 1
        see[X0, 0] = gains[at]
        step = np.stack([table.to_x[row], table.to_anchor[row], np.eye(5)[X0], np.eye(5)[PREVIOUS]])
        expected = step @ (see @ expected + constant * np.eye(5)[X0])
        step = step @ see
        covariance = step @ covariance @ step.T
        covariance[0, 0] += table.noise[row] ** 2
    return expected[0], np.sqrt(covariance[0, 0])


def error(process: Process, sampler: Sampler) -> float:
    """How far the standard deviation of the results is from DEVIATION."""
    return abs(moments(process, sampler)[1] - DEVIATION)


def euler_bound(process: Process, sampler: Sampler) -> float:
    """A bound of how far Euler's method is off on the sampler's grid, in logarithms of deviations.

    With y = x_t / signal and r = noise / signal it solves d(log y) / d(log r) = g, where g = r^2 /
    (r^2 + DEVIATION^2) falls from 1 to 0. A step over h = -change of log r treats g as g_0, that of
    its start, and y as linear in r. The first costs at most h times the fall of g in the step, the
    second log(1 - g_0 + g_0 exp(-h)) + h g_0. The last step, to r = 0, costs -log(1 - g_0) / 2, as
    log y is known there.
    """
    grid, _ = solver_tables(process, sampler)
    ratio = grid.sigma[:-1] / np.maximum(grid.signal[:-1], 2.0**-12)
    g = ratio**2 / (ratio**2 + DEVIATION**2)
    h, start = -np.diff(np.log(ratio)), g[:-1]
    varying = h * -np.diff(g)
    bent = np.log1p(start * np.expm1(-h)) + h * start
    return np.sum(varying + bent) - np.log1p(-g[-1]) / 2


def errors(counts: list[int]) -> dict[tuple[str, str], list[float]]:
    """The errors of each (process, sampler) at each number of steps."""
    return {
        (process.name, name): [
            error(process, Sampler(name=name, steps=n, spacing="karras")) for n in counts
        ]
        for process in PROCESSES.values()
        for name in compatible_samplers(process)
    }


def order(counts: list[int], errors: list[float]) -> float:
    """The slope of the errors on logarithmic axes, sign changed."""
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]
