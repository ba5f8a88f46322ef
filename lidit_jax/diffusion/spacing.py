"""Time steps of samplers and their signal and noise scales, in float64 NumPy.

| spacing    | times of n steps                                                               |
|------------|--------------------------------------------------------------------------------|
| `trailing` | even strides down from the noisiest time; the default                          |
| `linspace` | evenly from the noisiest training time to the cleanest one, then the image     |
| `leading`  | even strides up from the cleanest time (DDPM only); omits the noisiest one     |
| `karras`   | even in (noise / signal)^(1/7), https://arxiv.org/abs/2206.00364, eq. 5        |

The first three are those of https://arxiv.org/abs/2305.08891, table 2. Times of rectified flow are
also shifted (`RectifiedFlow.shift_times`), by the shift of the process or of the sampler.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lidit_jax.diffusion.base import Process, Table
from lidit_jax.diffusion.ddpm import DDPM
from lidit_jax.diffusion.flow import RectifiedFlow
from lidit_jax.errors import LiditError, quoted

_SPACINGS = {
    "ddpm": ("trailing", "linspace", "leading", "karras"),
    "flow": ("trailing", "linspace", "karras"),
}
_KARRAS_RHO = 7
# The cleanest time of "linspace" and "karras" under flow, as in diffusers' schedulers.
_CLEANEST_FLOW_TIME = 1e-3


class Grid(NamedTuple):
    """Time grid: the n times of network evaluations, followed by clean data."""

    times: Float[np.ndarray, " n+1"]
    """Decreasing times, in the unit of the process."""
    signal: Float[np.ndarray, " n+1"]
    """Scale of x0; 1 at the end."""
    sigma: Float[np.ndarray, " n+1"]
    """Scale of the noise; 0 at the end."""


def compatible_spacings(process: Process) -> tuple[str, ...]:
    """Return the names of the spacings that support a process."""
    return _SPACINGS[process.name]


def grid(
    process: Process,
    spacing: str,
    steps: int,
    *,
    shift: float = 0.0,
    fractional: bool = False,
    early_stop: bool = False,
) -> Grid:
    """Return the time grid of a sampler.

    Args:
      process: the process.
      spacing: a name from the table above.
      steps: n.
      shift: time shift of rectified flow; 0 for the process's own.
      fractional: allow DDPM times between the training times; otherwise they are rounded.
      early_stop: with "linspace" and "leading", spread n+1 times and omit the cleanest one, which
        multistep samplers do not need.

    Raises:
      LiditError: for an unknown spacing, a shift under DDPM, or a number of steps out of range.
    """
    if spacing not in compatible_spacings(process):
        raise LiditError(
            f"spacing {spacing!r} does not fit process {process.name!r}: "
            f"choose one of {quoted(compatible_spacings(process))}"
        )
    if not 0 <= shift < np.inf:
        raise LiditError(f"shift {shift}: must be greater than 0, or 0 for the model's own")
    process.sampling_times(steps)  # refuses a number of steps that is out of range
    if isinstance(process, DDPM):
        if shift:
            raise LiditError(
                f"shift {shift} moves the times of flow models, this one is DDPM: leave it out"
            )
        return _ddpm_grid(process, spacing, steps, fractional, early_stop)
    assert isinstance(process, RectifiedFlow)  # there is no third process
    process = dataclasses.replace(process, shift=shift) if shift else process
    return _flow_grid(process, spacing, steps)


def _ddpm_grid(process: DDPM, spacing: str, steps: int, fractional: bool, early_stop: bool) -> Grid:
    last, points = process.timesteps - 1, steps + early_stop
    match spacing:
        case "karras":
            ratios = _karras(process.noise_ratios[-1], process.noise_ratios[0], steps)
            times = np.interp(
                np.log(ratios), np.log(process.noise_ratios), np.arange(process.timesteps)
            )
            signal, sigma = process.scales_of_ratios(ratios)
            times = times if fractional else np.round(times)
            return Grid(np.append(times, -1.0), np.append(signal, 1.0), np.append(sigma, 0.0))
        case "linspace":
            times = np.linspace(0, last, points)[::-1]
            times = times if fractional else np.round(times)
        case "leading":
            times = np.arange(points)[::-1] * (process.timesteps // points)
        case _:
            times = process.sampling_times(steps)[:-1]
    times = np.append(times[:steps], -1.0).astype(np.float64)
    return Grid(times, *process.scales_of(times))


def _flow_grid(process: RectifiedFlow, spacing: str, steps: int) -> Grid:
    match spacing:
        case "karras":
            cleanest = process.shift_times(_CLEANEST_FLOW_TIME)
            times = np.append(_karras(1.0, cleanest, steps), 0.0)
        case "linspace":
            times = process.shift_times(np.append(np.linspace(1, _CLEANEST_FLOW_TIME, steps), 0.0))
        case _:
            times = process.shift_times(np.linspace(1, 0, steps + 1))
    return Grid(times, *process.scales_of(times))


def _karras(highest: float, lowest: float, steps: int) -> Table:
    first, last = np.array([highest, lowest]) ** (1 / _KARRAS_RHO)
    return np.linspace(first, last, steps) ** _KARRAS_RHO
