"""Rectified flow: straight paths between images and noise (https://arxiv.org/abs/2209.03003)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from statistics import NormalDist
from types import ModuleType
from typing import ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from lidit_jax.config.schema import DiffusionConfig
from lidit_jax.config.values import choices
from lidit_jax.diffusion import weighting
from lidit_jax.diffusion.base import AnyTimes, PerSample, Process, Table, Times
from lidit_jax.errors import LiditError, quoted

TIME_SAMPLINGS = choices(DiffusionConfig, "time_sampling")

_Arrays = TypeVar("_Arrays", Float[Array, "..."], Float[np.ndarray, "..."])
_Numbers = TypeVar("_Numbers", Float[Array, "..."], Float[np.ndarray, "..."], float, np.floating)


@dataclass(frozen=True, kw_only=True)
class RectifiedFlow(Process):
    """Rectified flow from the image (t=0) to the noise (t=1): `x_t = (1-t) x0 + t epsilon`.

    Times are drawn as in Stable Diffusion 3 (https://arxiv.org/abs/2403.03206, sections 3.1 and
    5.3.2), then shifted for the resolution.
    """

    name: ClassVar[str] = "flow"
    spaces: ClassVar[tuple[str, ...]] = ("velocity", "x0")
    weightings: ClassVar[tuple[str, ...]] = ("none", "min_snr", "sigma_sqrt", "cosmap")

    prediction: str = "velocity"
    time_sampling: str = "logit_normal"
    logit_mean: float = 0.0
    """Mean of the logit of the times under "logit_normal"."""
    logit_std: float = 1.0
    """Standard deviation of the logit of the times under "logit_normal"."""
    mode_scale: float = 1.29
    """Concentration of "mode" on middle times, -1 to 2 / (pi - 2) = 1.75."""
    shift: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.time_sampling not in TIME_SAMPLINGS:
            raise LiditError(
                f"config.diffusion.time_sampling={self.time_sampling!r}: "
                f"choose one of {quoted(TIME_SAMPLINGS)}"
            )
        if not 0 < self.shift < math.inf:
            raise LiditError(
                f"config.diffusion.shift={self.shift}: must be greater than 0, and finite"
            )
        if not self.logit_std > 0:
            raise LiditError(f"config.diffusion.logit_std={self.logit_std}: must be greater than 0")
        if not -1 <= self.mode_scale <= 2 / (math.pi - 2):
            raise LiditError(
                f"config.diffusion.mode_scale={self.mode_scale}: must be from -1 to 1.75, beyond "
                "which times would leave [0, 1]"
            )

    def scales(self, t: Times) -> tuple[PerSample, PerSample]:
        """Return the scales 1-t and t."""
        return 1 - t, t

    def scales_of(self, times: Table) -> tuple[Table, Table]:
        """Return the scales 1-t and t."""
        return 1 - times, times

    def shift_times(self, t: _Numbers) -> _Numbers:
        """Apply the shift `s t / (1 + (s-1) t)`: s > 1 moves times toward the noise."""
        return self.shift * t / (1 + (self.shift - 1) * t)

    def at_resolution(self, ratio: float) -> RectifiedFlow:
        """Return the process shifted for another image size (arXiv 2403.03206, eq. 23).

        The same noise destroys less of an image with more pixels, so times move toward the noise.

        Args:
          ratio: square root of the ratio of its pixel count to that of the images `shift` is for.
        """
        return dataclasses.replace(self, shift=self.shift * ratio)

    def sample_times(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
        """Draw shifted times in [0, 1], float32."""
        if self.time_sampling == "logit_normal":
            logit = jax.random.normal(key, shape, jnp.float32)
            times = jax.nn.sigmoid(logit * self.logit_std + self.logit_mean)
        else:
            times = jax.random.uniform(key, shape, jnp.float32)
        if self.time_sampling == "mode":
            times = self._mode(times, jnp)
        return self.shift_times(times)

    def _mode(self, uniform: _Arrays, library: ModuleType) -> _Arrays:
        """Map uniform numbers to times of "mode" sampling."""
        bump = library.square(library.cos(library.pi / 2 * uniform)) - 1 + uniform
        return 1 - uniform - self.mode_scale * bump

    def validation_times(self, n: int) -> Float[np.ndarray, " n"]:
        """Return quantiles of the distribution of `sample_times`, including the shift."""
        share = (np.arange(n) + 0.5) / n
        match self.time_sampling:
            case "logit_normal":
                logits = [NormalDist(self.logit_mean, self.logit_std).inv_cdf(s) for s in share]
                times = 1 / (1 + np.exp(-np.array(logits)))
            case "mode":
                times = self._mode(1 - share, np)  # decreasing in its argument
            case _:
                times = share
        return self.shift_times(times).astype(np.float32)

    def sampling_times(self, steps: int) -> Float[np.ndarray, " {steps}+1"]:
        """Return times from 1 to 0 in equal strides, shifted.

        Raises:
          LiditError: when `steps` is not positive.
        """
        if steps < 1:
            raise LiditError(f"{steps} sampling steps: choose 1 or more")
        return self.shift_times(np.linspace(1, 0, steps + 1)).astype(np.float32)

    def model_time(self, t: AnyTimes) -> AnyTimes:
        """Return 1000 t, since sinusoids of a time in [0, 1] would be nearly constant."""
        return 1000 * t

    def normalized_time(self, times: Table) -> Table:
        """Return the time unchanged."""
        return times

    def _loss_weight(self, t: Times) -> PerSample | float:
        match self.weighting:
            case "sigma_sqrt":
                return weighting.sigma_sqrt(t)
            case "cosmap":
                return weighting.cosmap(t)
            case _:
                return super()._loss_weight(t)
