"""Noise schedules of DDPM: float64 tables of T betas, or of T signal and noise scales."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from lidit_jax.config.schema import DiffusionConfig
from lidit_jax.config.values import choices

SCHEDULES = choices(DiffusionConfig, "schedule")

_COSINE_OFFSET = 0.008
_COSINE_MAX_BETA = 0.999


def betas(
    schedule: str, timesteps: int, beta_start: float, beta_end: float
) -> Float[np.ndarray, " T"]:
    """Return the betas: the share of variance that each step replaces by noise.

    Args:
      schedule: "linear" (Ho et al. 2020, https://arxiv.org/abs/2006.11239), "scaled_linear" (linear
        in the square root; Stable Diffusion) or "cosine" (Nichol and Dhariwal 2021,
        https://arxiv.org/abs/2102.09672, eq. 17, which uses neither start nor end).
      timesteps: T.
      beta_start: the first beta.
      beta_end: the last beta.
    """
    match schedule:
        case "linear":
            return np.linspace(beta_start, beta_end, timesteps)
        case "scaled_linear":
            return np.linspace(beta_start**0.5, beta_end**0.5, timesteps) ** 2
        case _:
            edges = np.arange(timesteps + 1) / timesteps
            angle = (edges + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * np.pi / 2
            kept = np.cos(angle) ** 2
            return np.minimum(1 - kept[1:] / kept[:-1], _COSINE_MAX_BETA)


def scales(
    betas: Float[np.ndarray, " T"], *, zero_terminal_snr: bool = False
) -> tuple[Float[np.ndarray, " T"], Float[np.ndarray, " T"]]:
    """Return the scales of image and noise at each timestep; their squares sum to 1.

    Args:
      betas: as returned by `betas`.
      zero_terminal_snr: shift and scale the signal so that the last timestep is pure noise
        (https://arxiv.org/abs/2305.08891, algorithm 1); the first one is unchanged.
    """
    signal = np.sqrt(np.cumprod(1 - betas))
    if zero_terminal_snr:
        first, last = signal[0], signal[-1]
        signal = (signal - last) * first / (first - last)
    return signal, np.sqrt(1 - signal**2)
