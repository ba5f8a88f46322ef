"""Denoising diffusion in T discrete steps (Ho et al. 2020; LI-DiT, appendix A.1)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from lidit_jax.diffusion import schedules
from lidit_jax.diffusion.base import AnyTimes, PerSample, Process, Table, Times, check_choice
from lidit_jax.errors import LiditError

# Replaces a signal of 0 in ratios of noise to signal. 2**-12 is the square root of the smallest
# float16, as in diffusers.
_LEAST_SIGNAL = 2.0**-12


@dataclass(frozen=True, kw_only=True)
class DDPM(Process):
    """DDPM with integer times 0 .. T-1; T-1 is (almost) pure noise.

    The time -1 is clean data, which only samplers reach.
    """

    name: ClassVar[str] = "ddpm"
    spaces: ClassVar[tuple[str, ...]] = ("epsilon", "v", "x0")

    prediction: str = "epsilon"
    timesteps: int = 1000
    schedule: str = "linear"
    """See `lidit_jax.diffusion.schedules`."""
    beta_start: float = 1e-4
    beta_end: float = 0.02
    zero_terminal_snr: bool = False
    """Make the last timestep pure noise (https://arxiv.org/abs/2305.08891)."""

    def __post_init__(self):
        super().__post_init__()
        check_choice("schedule", self.schedule, schedules.SCHEDULES, self.name)
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise LiditError(
                f"config.diffusion.beta_start={self.beta_start} and beta_end={self.beta_end}: "
                "must satisfy 0 < beta_start <= beta_end < 1"
            )
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise LiditError(
                "config.diffusion.prediction='epsilon' does not fit zero_terminal_snr=True: noise "
                "does not determine the image where there is no signal; choose 'v' or 'x0'"
            )

    @functools.cached_property
    def _table(self) -> tuple[Table, Table]:
        """Signal and noise scales at the times 0 .. T-1, float64."""
        betas = schedules.betas(self.schedule, self.timesteps, self.beta_start, self.beta_end)
        return schedules.scales(betas, zero_terminal_snr=self.zero_terminal_snr)

    @functools.cached_property
    def _scale_table(self) -> Float[np.ndarray, "2 {self.timesteps}+1"]:
        signal, sigma = self._table
        return np.array([np.append(signal, 1.0), np.append(sigma, 0.0)], np.float32)

    @functools.cached_property
    def noise_ratios(self) -> Table:
        """Ratios of noise to signal at the times 0 .. T-1, increasing and finite; float64.

        These are the sigmas of "variance exploding" samplers (Karras et al. 2022).
        """
        signal, sigma = self._table
        return sigma / np.maximum(signal, _LEAST_SIGNAL)

    def scales(self, t: Times) -> tuple[PerSample, PerSample]:
        """Return the scales of x0 and of the noise at integer times -1 .. T-1."""
        # The entry for clean data is last, so that index -1 selects it.
        signal, sigma = jnp.asarray(self._scale_table)[:, t]
        return signal, sigma

    def scales_of(self, times: Table) -> tuple[Table, Table]:
        """Return the scales in float64; noise-to-signal is interpolated between integer times."""
        whole = np.round(times)
        if np.all(whole == times):
            signal, sigma = self._table
            index = whole.astype(int)  # -1 selects the last entry: clean data
            return np.append(signal, 1.0)[index], np.append(sigma, 0.0)[index]
        ratios = np.interp(times, np.arange(-1, self.timesteps), np.append(0.0, self.noise_ratios))
        return self.scales_of_ratios(ratios)

    @staticmethod
    def scales_of_ratios(ratios: Table) -> tuple[Table, Table]:
        """Return the scales, squares summing to 1, for ratios of noise to signal."""
        signal = 1 / np.sqrt(1 + ratios**2)
        return signal, ratios * signal

    def sample_times(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Int[Array, "..."]:
        """Draw times uniformly from 0 .. T-1."""
        return jax.random.randint(key, shape, 0, self.timesteps)

    def validation_times(self, n: int) -> Int[np.ndarray, " n"]:
        """Return `n` evenly spaced integer times; they repeat when n exceeds T."""
        return np.floor((np.arange(n) + 0.5) * self.timesteps / n).astype(np.int32)

    def sampling_times(self, steps: int) -> Int[np.ndarray, " {steps}+1"]:
        """Return times from T-1 down in even strides, then -1, the clean image.

        This is the "trailing" spacing of https://arxiv.org/abs/2305.08891, table 2: sampling starts
        at the noisiest training time.

        Raises:
          LiditError: when `steps` exceeds T.
        """
        if not 0 < steps <= self.timesteps:
            raise LiditError(
                f"{steps} sampling steps: this model has {self.timesteps} timesteps, "
                f"choose 1 to {self.timesteps} steps"
            )
        times = np.round(np.arange(steps, -1, -1) * self.timesteps / steps) - 1
        return times.astype(np.int32)

    def model_time(self, t: AnyTimes) -> AnyTimes:
        """Return the integer time as a floating-point number."""
        return t.astype(np.float64) if isinstance(t, np.ndarray) else t.astype(jnp.float32)

    def normalized_time(self, times: Table) -> Table:
        """Map -1 (clean data) to 0 and T-1 (noise) to 1."""
        return (times + 1) / self.timesteps
