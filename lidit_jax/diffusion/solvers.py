"""Coefficient tables of each sampler, computed in float64 NumPy before compilation.

Every sampler here is a linear recurrence. Between two evaluations of the network the new sample is
a weighted sum of five arrays, plus fresh noise, with weights that depend on the times alone:

| column     | array                                                                      |
|------------|----------------------------------------------------------------------------|
| `x`        | the current input of the network                                           |
| `anchor`   | another sample that is kept, e.g. the one before a trial step              |
| `x0`       | the current x0-prediction of the network                                   |
| `previous` | the x0-prediction of the evaluation before                                 |
| `older`    | the x0-prediction of two evaluations before                                |

One row gives the next sample, a second row the next anchor. One compiled loop therefore runs all
samplers (`lidit_jax.diffusion.samplers`), and a sampler is a function from a time grid to a table.

In the formulas a step goes from (signal, sigma) to (signal', sigma'), and lambda = log(signal /
sigma) increases from -inf (noise) to +inf (image).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lidit_jax.diffusion.spacing import Grid

X, ANCHOR, X0, PREVIOUS, OLDER = range(5)
COLUMNS = 5

# UniPC's equations need a finite lambda at pure noise: a signal of 1e-6, as in diffusers.
_LEAST_SIGNAL = 1e-6
# Heun's trial step divides by the signal under DDPM with zero terminal SNR.
_LEAST_HEUN_SIGNAL = 2.0**-12
_LARGEST_HEUN_FALL = 8.0


class SolverTable(NamedTuple):
    """Coefficients of a sampler after each of its n network evaluations."""

    at: Int[np.ndarray, " n"]
    """Index of the grid time at which the network is evaluated."""
    step: Int[np.ndarray, " n"]
    """Index of the step to which the evaluation belongs; Heun evaluates twice per step."""
    to_x: Float[np.ndarray, "n 5"]
    """Weights of the next sample."""
    to_anchor: Float[np.ndarray, "n 5"]
    """Weights of the next anchor."""
    noise: Float[np.ndarray, " n"]
    """Scale of the fresh noise in the next sample."""


def first_order(grid: Grid, eta: float = 0.0) -> SolverTable:
    """Return the table of DDIM, which also covers Euler and ancestral sampling.

    See https://arxiv.org/abs/2010.02502, eq. 12 and 16. eta=0 equals Euler's method, both for DDPM
    in the coordinates of Karras et al. and for flow, because x_t is linear in x0 and noise; eta=1
    equals DDPM's ancestral sampling with the posterior variance, and the ancestral Euler method.
    """
    signal, sigma, signal_next, sigma_next = _ends(grid)
    shrink = sigma_next * signal / (signal_next * sigma)
    noise = eta * sigma_next * np.sqrt(1 - shrink**2)
    keep = np.sqrt(np.maximum(sigma_next**2 - noise**2, 0)) / sigma
    table = _empty(np.arange(len(signal)))
    table.to_x[:, X] = keep
    table.to_x[:, X0] = signal_next - keep * signal
    table.noise[:] = noise
    return table


def heun(grid: Grid, straight: bool) -> SolverTable:
    """Return the table of Heun's method: an Euler step, repeated with the mean slope; order 2.

    The last step, to clean data, has no slope at its end and is first order; n steps take 2n-1
    evaluations. See https://arxiv.org/abs/2206.00364, algorithm 1 without churn.

    Under DDPM the first steps are first order as well, with one evaluation each, while the ratio of
    noise to signal falls more than eightfold in one step: from pure noise (zero terminal SNR, the
    cosine schedule) or with very few steps. The slope at the end of such a step would amplify the
    error of the predicted image hundreds of times. Unlike here, diffusers corrects these steps too.

    Args:
      grid: the times.
      straight: solve in x_t itself (flow) instead of x_t / signal (DDPM).
    """
    steps = len(grid.times) - 1
    scale = np.ones(steps + 1) if straight else np.maximum(grid.signal, _LEAST_HEUN_SIGNAL)
    ratio = grid.sigma / scale  # dy/d(ratio) = (y - x0) / ratio, for y = x_t / scale
    falls = ratio[:-1] > _LARGEST_HEUN_FALL * ratio[1:]
    plain = 0 if straight else int(np.argmin(np.append(falls[:-1], False)))
    pairs = np.arange(plain, steps)
    # Evaluated at 0, 1, ... in Euler steps, then at start, start + 1, start + 1, start + 2, ...
    at = np.append(np.arange(plain), np.repeat(pairs, 2)[1:])
    step = np.append(np.arange(plain), np.repeat(pairs, 2)[:-1])
    euler = first_order(grid)
    table = _empty(at, step)
    for row in range(len(at)):
        start, end = step[row], at[row]
        if start == end:
            table.to_x[row] = euler.to_x[end]
            table.to_anchor[row, X] = 1
            continue
        # The trial point is `x`, its start is `anchor`, the image predicted there is `previous`.
        half = (ratio[end] - ratio[start]) / 2
        table.to_x[row, ANCHOR] = scale[end] / scale[start] * (1 + half / ratio[start])
        table.to_x[row, PREVIOUS] = -scale[end] * half / ratio[start]
        table.to_x[row, X] = half / ratio[end]
        table.to_x[row, X0] = -scale[end] * half / ratio[end]
    return table


def dpm_solver(grid: Grid, stochastic: bool = False) -> SolverTable:
    """Return the table of DPM-Solver++ 2M: order 2, one evaluation per step.

    Args:
      grid: the times.
      stochastic: the SDE variant, which adds fresh noise ("SDE-DPM-Solver++(2M)", section 5.2 of
        https://arxiv.org/abs/2211.01095; otherwise its algorithm 2).
    """
    signal, sigma, signal_next, sigma_next = _ends(grid)
    decay = sigma_next * signal / (signal_next * sigma)  # exp(-h)
    h = -_log(decay)
    gain = 1 - decay**2 if stochastic else 1 - decay
    table = _empty(np.arange(len(signal)))
    table.to_x[:, X] = sigma_next / sigma * (decay if stochastic else 1)
    # The slope of x0 in lambda, from the last two predictions; zero in the first and last step.
    slope = np.zeros_like(h)
    np.divide(h[1:], h[:-1], out=slope[1:], where=np.isfinite(h[1:]))
    table.to_x[:, X0] = signal_next * gain * (1 + slope / 2)
    table.to_x[:, PREVIOUS] = -signal_next * gain * slope / 2
    if stochastic:
        table.noise[:] = sigma_next * np.sqrt(1 - decay**2)
    return table


def unipc(grid: Grid) -> SolverTable:
    """Return the table of UniPC of order 2 with B2(h) (https://arxiv.org/abs/2302.04867).

    The predictor is DPM-Solver++ 2M. Each evaluation first corrects the step before it, then
    predicts the next one. The sample before the step is the anchor.
    """
    lambdas = _log(np.maximum(grid.signal, _LEAST_SIGNAL)) - _log(grid.sigma)
    predict = dpm_solver(grid._replace(signal=np.maximum(grid.signal, _LEAST_SIGNAL)))
    table = _empty(predict.at)
    table.to_anchor[0, X] = 1
    for i in range(1, len(predict.at)):
        h = lambdas[i] - lambdas[i - 1]
        decay = np.expm1(-h)
        if i == 1:  # of order 1
            weights = {X0: 0.5, PREVIOUS: -0.5}
        else:
            r = (lambdas[i - 2] - lambdas[i - 1]) / h
            phi_1 = decay / -h - 1
            phi_2 = phi_1 / -h - 0.5
            rho, rho_now = np.linalg.solve([[1, 1], [r, 1]], np.array([phi_1, 2 * phi_2]) / decay)
            weights = {X0: rho_now, PREVIOUS: -rho_now - rho / r, OLDER: rho / r}
        gain = -grid.signal[i] * decay
        row = table.to_anchor[i]
        row[ANCHOR] = grid.sigma[i] / grid.sigma[i - 1]
        for column, weight in weights.items():
            row[column] = gain * weight
        row[PREVIOUS] += gain
    # The next sample is predicted from the corrected one, i.e. from the row of the new anchor.
    table.to_x[:] = predict.to_x[:, [X]] * table.to_anchor
    for column in (X0, PREVIOUS):
        table.to_x[:, column] += predict.to_x[:, column]
    return table


def _empty(at: Int[np.ndarray, " n"], step: Int[np.ndarray, " n"] | None = None) -> SolverTable:
    rows = np.zeros((2, len(at), COLUMNS))
    return SolverTable(at, at if step is None else step, rows[0], rows[1], np.zeros(len(at)))


def _ends(grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return signal, sigma, signal' and sigma' of each step."""
    return grid.signal[:-1], grid.sigma[:-1], grid.signal[1:], grid.sigma[1:]


def _log(a: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(a)
