"""The interface of diffusion processes: noise schedule, prediction target and loss.

Processes are frozen and hashable: pass them to `jax.jit` as static arguments or close over them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Num

from lidit_jax.diffusion import parameterization, weighting
from lidit_jax.diffusion.parameterization import Images
from lidit_jax.errors import LiditError, quoted

Times = Num[Array, "B"]  # integers for DDPM, float32 in [0, 1] for flow
PerSample = Float[Array, "B"]
Table = Float[np.ndarray, "n"]  # float64
AnyTimes = TypeVar("AnyTimes", Num[Array, " B"], Num[np.ndarray, " n"])
"""Times of B samples (JAX) or of a table (NumPy)."""


@dataclass(frozen=True, kw_only=True)
class Process(ABC):
    """Base class of the diffusion processes; most methods follow from `scales`.

    Construction raises `LiditError` for a field out of range or an unsupported prediction space.
    """

    name: ClassVar[str]
    """Value of `config.diffusion.process`."""
    spaces: ClassVar[tuple[str, ...]]
    """Supported prediction spaces (`lidit_jax.diffusion.parameterization`)."""
    weightings: ClassVar[tuple[str, ...]] = ("none", "min_snr")
    """Supported values of `config.diffusion.weighting`."""

    prediction: str
    """Prediction space of the network."""
    loss_space: str = "prediction"
    """Space in which `loss` measures the error; "prediction" for the network's own."""
    weighting: str = "none"
    """Time-dependent loss weighting (`lidit_jax.diffusion.weighting`)."""
    snr_gamma: float = 5.0
    """Gamma of "min_snr": the largest weight of an error in x0."""

    def __post_init__(self):
        check_choice("prediction", self.prediction, self.spaces, self.name)
        if self.loss_space != "prediction":
            check_choice("loss", self.loss_space, self.spaces, self.name)
        check_choice("weighting", self.weighting, self.weightings, self.name)
        if self.weighting != "none" and self.loss_space != "prediction":
            raise LiditError(
                f"config.diffusion.weighting={self.weighting!r} applies to the prediction's space: "
                "leave config.diffusion.loss at 'prediction'"
            )
        if not self.snr_gamma > 0:
            raise LiditError(f"config.diffusion.snr_gamma={self.snr_gamma}: must be greater than 0")

    @abstractmethod
    def scales(self, t: Times) -> tuple[PerSample, PerSample]:
        """Return the scales of x0 and of the noise in x_t, float32."""

    @abstractmethod
    def scales_of(self, times: Table) -> tuple[Table, Table]:
        """Return `scales` in float64 NumPy, for the coefficient tables of the samplers."""

    @abstractmethod
    def sample_times(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Num[Array, "..."]:
        """Draw random training times."""

    @abstractmethod
    def validation_times(self, n: int) -> Num[np.ndarray, " n"]:
        """Return `n` fixed times: the midpoints of `n` equally likely intervals of training times.

        The mean loss at these times is therefore comparable with the training loss.
        """

    @abstractmethod
    def sampling_times(self, steps: int) -> Num[np.ndarray, " {steps}+1"]:
        """Return the default sampling times, from pure noise down to clean data inclusive."""

    @abstractmethod
    def model_time(self, t: AnyTimes) -> AnyTimes:
        """Return the time as the network's time embedder receives it, from 0 to about 1000."""

    @abstractmethod
    def normalized_time(self, times: Table) -> Table:
        """Map times to the range from clean image (0) to pure noise (1)."""

    def add_noise(self, x0: Images, noise: Images, t: Times) -> Images:
        """Return the noisy sample x_t, float32."""
        signal, sigma = self._scales_like(x0, t)
        return signal * x0 + sigma * noise

    def target(self, x0: Images, noise: Images, t: Times) -> Images:
        """Return the regression target of the network at `add_noise(x0, noise, t)`."""
        return parameterization.from_x0_epsilon(
            self.prediction, x0, noise, *self._scales_like(x0, t)
        )

    def convert(self, prediction: Images, x_t: Images, t: Times, space: str) -> Images:
        """Convert a prediction to another prediction space."""
        scales = self._scales_like(x_t, t)
        return parameterization.convert(self.prediction, space, prediction, x_t, *scales)

    def loss(self, prediction: Images, x0: Images, noise: Images, t: Times) -> PerSample:
        """Return the weighted mean squared error of each sample, float32.

        The error is measured in the network's own prediction space and weighted by time, without
        converting prediction and target.
        """
        error = prediction.astype(jnp.float32) - self.target(x0, noise, t)
        squared = jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))
        return squared * self._loss_weight(t)

    def _loss_weight(self, t: Times) -> PerSample | float:
        signal, sigma = self.scales(t)
        if self.weighting == "min_snr":
            return weighting.min_snr(self.prediction, self.snr_gamma, signal, sigma)
        measured = self.prediction if self.loss_space == "prediction" else self.loss_space
        return weighting.space_weight(self.prediction, measured, signal, sigma)

    def _scales_like(self, x: Images, t: Times) -> tuple[Images, Images]:
        signal, sigma = self.scales(t)
        shape = t.shape + (1,) * (x.ndim - t.ndim)
        return jax.numpy.reshape(signal, shape), jax.numpy.reshape(sigma, shape)


def check_choice(field: str, value: Any, choices: Iterable[Any], process: str) -> None:
    """Raise `LiditError` unless a field of `config.diffusion` has one of `choices`."""
    if value not in choices:
        raise LiditError(
            f"config.diffusion.{field}={value!r} does not fit process {process!r}: "
            f"choose one of {quoted(choices)}"
        )
