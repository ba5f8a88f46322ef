"""The diffusion process: the one schedule that training, sampling and export share.

Both processes mix an image with Gaussian noise, `x_t = signal(t) * x0 + noise(t) * epsilon`, and
differ in the two scales and in how times are drawn. A network may predict any of the process's
*spaces*; given x_t and t, each determines (x0, epsilon) and with it every other one.

| space      | quantity                       | process    |
|------------|--------------------------------|------------|
| `epsilon`  | the noise                      | DDPM       |
| `v`        | signal * epsilon - noise * x0  | DDPM       |
| `velocity` | epsilon - x0, which is dx_t/dt | flow       |
| `x0`       | the image                      | both       |

Processes are frozen and hashable: pass them to `jax.jit` as static arguments or close over them.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Num

from lidit_jax.config import DiffusionConfig
from lidit_jax.errors import LiditError

Images = Float[Array, "B ..."]  # x0, x_t, noise or prediction: B samples of any rank
Times = Num[Array, "B"]  # integers for DDPM, float32 in [0, 1] for flow
PerSample = Float[Array, "B"]

# The least value by which a loss in another space divides: an error in x0 counts at most 1/0.05 =
# 20 times in velocity, however small t. As in JiT, https://arxiv.org/abs/2511.13720.
LOSS_DIVISOR_FLOOR = 0.05

# An error in x0 of 1 is, at fixed x_t, an error in the space of signal**p * noise**q (sign aside).
_ERROR_POWERS = {"x0": (0, 0), "epsilon": (1, -1), "v": (0, -1), "velocity": (0, -1)}


def from_config(config: DiffusionConfig) -> Process:
    """The process that `config` describes.

    Raises:
      LiditError: for a prediction or loss space that the process does not have, or for a value
        that is out of range; names the field.
    """
    spaces = {"prediction": config.prediction, "loss_space": config.loss}
    if config.process == "flow":
        return RectifiedFlow(**spaces, time_sampling=config.time_sampling, shift=config.shift)
    if config.shift != 1:
        raise LiditError(
            f"config.diffusion.shift={config.shift}: DDPM has no time shift, "
            "set 1.0 or config.diffusion.process='flow'"
        )
    betas = {"beta_start": config.beta_start, "beta_end": config.beta_end}
    return DDPM(**spaces, timesteps=config.timesteps, **betas)


@dataclass(frozen=True, kw_only=True)
class Process(ABC):
    """What both processes share; most of it follows from `scales`.

    Making one raises `LiditError` when a field is out of range, or a space is not the process's.
    """

    name: ClassVar[str]
    """Value of `config.diffusion.process`."""
    spaces: ClassVar[tuple[str, ...]]
    """What a network may predict under this process."""

    prediction: str
    """The space that the network predicts."""
    loss_space: str = ""
    """The space in which `loss` measures the error; empty: the space of the prediction."""

    def __post_init__(self):
        for field, space in (("prediction", self.prediction), ("loss", self.loss_space)):
            if space not in self.spaces and (field, space) != ("loss", ""):
                raise LiditError(
                    f"config.diffusion.{field}={space!r} does not fit process {self.name!r}: "
                    f"choose one of {', '.join(map(repr, self.spaces))}"
                )

    @abstractmethod
    def scales(self, t: Times) -> tuple[PerSample, PerSample]:
        """The scales of x0 and of the noise in x_t, float32."""

    @abstractmethod
    def sample_times(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Num[Array, "..."]:
        """Random training times."""

    @abstractmethod
    def times_for_validation(self, n: int) -> Num[np.ndarray, "n"]:
        """`n` fixed times, each the middle of one of `n` equal parts of the time axis."""

    @abstractmethod
    def sampling_times(self, steps: int) -> Num[np.ndarray, "steps+1"]:
        """The times that a sampler visits: from pure noise down to clean data, both included."""

    @abstractmethod
    def model_time(self, t: Times) -> PerSample:
        """The time as the network's embedder receives it, from 0 to about 1000."""

    def add_noise(self, x0: Images, noise: Images, t: Times) -> Images:
        """x_t, float32."""
        signal, sigma = self._scales_like(x0, t)
        return signal * x0 + sigma * noise

    def target(self, x0: Images, noise: Images, t: Times) -> Images:
        """What a perfect network returns for `add_noise(x0, noise, t)`."""
        return self._in_space(self.prediction, x0, noise, t)

    def to_x0_epsilon(self, prediction: Images, x_t: Images, t: Times) -> tuple[Images, Images]:
        """The image and the noise that a prediction stands for; at every time a sampler visits.

        An x0-prediction at a time without any noise (flow, t=0) says nothing about epsilon: there
        the second result is not finite.
        """
        signal, sigma = self._scales_like(x_t, t)
        match self.prediction:
            case "epsilon":
                return (x_t - sigma * prediction) / signal, prediction
            case "v":
                return signal * x_t - sigma * prediction, sigma * x_t + signal * prediction
            case "velocity":
                return x_t - sigma * prediction, x_t + signal * prediction
            case _:
                return prediction, (x_t - signal * prediction) / sigma

    def convert(self, prediction: Images, x_t: Images, t: Times, space: str) -> Images:
        """The prediction expressed in another of the process's spaces."""
        if space == self.prediction:
            return prediction
        return self._in_space(space, *self.to_x0_epsilon(prediction, x_t, t), t)

    def loss(self, prediction: Images, x0: Images, noise: Images, t: Times) -> PerSample:
        """Mean squared error of each sample in `loss_space`, float32.

        At fixed x_t an error in one space is a multiple of the error in another. So the error is
        measured where the network predicts and weighted, without converting prediction and target;
        divisors in the weight are kept at `LOSS_DIVISOR_FLOOR` or more.
        """
        error = prediction.astype(jnp.float32) - self.target(x0, noise, t)
        squared = jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))
        return squared * jnp.square(self._loss_weight(t))

    def _loss_weight(self, t: Times) -> PerSample:
        weight = 1.0
        loss_powers = _ERROR_POWERS[self.loss_space or self.prediction]
        powers = np.subtract(loss_powers, _ERROR_POWERS[self.prediction]).tolist()
        for scale, power in zip(self.scales(t), powers, strict=True):
            weight = weight * jnp.maximum(scale, LOSS_DIVISOR_FLOOR if power < 0 else 0) ** power
        return weight

    def _in_space(self, space: str, x0: Images, epsilon: Images, t: Times) -> Images:
        match space:
            case "epsilon":
                return epsilon
            case "v":
                signal, sigma = self._scales_like(x0, t)
                return signal * epsilon - sigma * x0
            case "velocity":
                return epsilon - x0
            case _:
                return x0

    def _scales_like(self, x: Images, t: Times) -> tuple[Images, Images]:
        signal, sigma = self.scales(t)
        shape = t.shape + (1,) * (x.ndim - t.ndim)
        return signal.reshape(shape), sigma.reshape(shape)


@dataclass(frozen=True, kw_only=True)
class DDPM(Process):
    """Denoising diffusion with linear betas (Ho et al. 2020; LI-DiT, appendix A.1).

    Times are the integers 0 .. T-1; T-1 is almost pure noise. -1 stands for clean data and is only
    where a sampler arrives.
    """

    name: ClassVar[str] = "ddpm"
    spaces: ClassVar[tuple[str, ...]] = ("epsilon", "v", "x0")

    prediction: str = "epsilon"
    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise LiditError(
                f"config.diffusion.beta_start={self.beta_start} and beta_end={self.beta_end}: "
                "must satisfy 0 < beta_start <= beta_end < 1"
            )

    @functools.cached_property
    def _scale_table(self) -> Float[np.ndarray, "2 T+1"]:
        betas = np.linspace(self.beta_start, self.beta_end, self.timesteps)
        alphas_cumprod = np.append(1.0, np.cumprod(1 - betas))
        return np.sqrt([alphas_cumprod, 1 - alphas_cumprod]).astype(np.float32)

    def scales(self, t: Times) -> tuple[PerSample, PerSample]:
        """The scales of x0 and of the noise at integer times -1 .. T-1."""
        signal, sigma = jnp.asarray(self._scale_table)[:, t + 1]
        return signal, sigma

    def sample_times(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Int[Array, "..."]:
        """Uniform over 0 .. T-1."""
        return jax.random.randint(key, shape, 0, self.timesteps)

    def times_for_validation(self, n: int) -> Int[np.ndarray, "n"]:
        """Integers; times repeat when n exceeds T."""
        return np.floor((np.arange(n) + 0.5) * self.timesteps / n).astype(np.int32)

    def sampling_times(self, steps: int) -> Int[np.ndarray, "steps+1"]:
        """From T-1 down in even strides, then -1, the clean image.

        The "trailing" spacing of https://arxiv.org/abs/2305.08891, table 2: sampling starts at the
        noisiest time that was trained.

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

    def model_time(self, t: Times) -> PerSample:
        """The integer, as float32."""
        return t.astype(jnp.float32)


@dataclass(frozen=True, kw_only=True)
class RectifiedFlow(Process):
    """A straight path from the image (t=0) to the noise (t=1): `x_t = (1-t) x0 + t epsilon`.

    Times are drawn as in Stable Diffusion 3 (https://arxiv.org/abs/2403.03206, sections 3.1 and
    5.3.2): logit-normal with mean 0 and deviation 1, or uniform, then shifted for the resolution.
    """

    name: ClassVar[str] = "flow"
    spaces: ClassVar[tuple[str, ...]] = ("velocity", "x0")

    prediction: str = "velocity"
    time_sampling: str = "logit_normal"
    shift: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.time_sampling not in ("uniform", "logit_normal"):
            raise LiditError(
                f"config.diffusion.time_sampling={self.time_sampling!r}: "
                "choose one of 'uniform', 'logit_normal'"
            )
        if self.shift <= 0:
            raise LiditError(f"config.diffusion.shift={self.shift}: must be greater than 0")

    def scales(self, t: Times) -> tuple[PerSample, PerSample]:
        """1-t and t."""
        return 1 - t, t

    def shift_times(self, t: Float[Array, "..."]) -> Float[Array, "..."]:
        """Resolution shift `s t / (1 + (s-1) t)`: s > 1 moves times towards the noise."""
        return self.shift * t / (1 + (self.shift - 1) * t)

    def sample_times(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
        """Shifted times in [0, 1], float32."""
        if self.time_sampling == "uniform":
            times = jax.random.uniform(key, shape, jnp.float32)
        else:
            times = jax.nn.sigmoid(jax.random.normal(key, shape, jnp.float32))
        return self.shift_times(times)

    def times_for_validation(self, n: int) -> Float[np.ndarray, "n"]:
        """Not shifted, so that losses of runs with different shifts can be compared."""
        return ((np.arange(n) + 0.5) / n).astype(np.float32)

    def sampling_times(self, steps: int) -> Float[np.ndarray, "steps+1"]:
        """From 1 to 0 in equal strides, then shifted.

        Raises:
          LiditError: when `steps` is not positive.
        """
        if steps < 1:
            raise LiditError(f"{steps} sampling steps: choose 1 or more")
        return self.shift_times(np.linspace(1, 0, steps + 1)).astype(np.float32)

    def model_time(self, t: Times) -> PerSample:
        """1000 t: sinusoids of a time in [0, 1] would be nearly constant."""
        return 1000 * t
