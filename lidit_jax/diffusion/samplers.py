"""Samplers: from noise to an image, in one compiled loop over a table of times.

A sampler is a step from one time to the next. `sample` runs it in a `jax.lax.scan`; the number of
steps is part of the compiled program, while noise, seeds, conditions and guidance scales are data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from lidit_jax.diffusion.guidance import ModelFn
from lidit_jax.diffusion.process import DDPM, Images, Process, RectifiedFlow, Times
from lidit_jax.errors import LiditError


class Samples(NamedTuple):
    """What `sample` returns."""

    x0: Float[Array, "B ..."]
    """The images (or latents), float32."""
    nonfinite_step: Int[Array, ""]
    """The first step, counted from 0, that made any value NaN or infinite; -1 when none did."""


def ddim_step(process: DDPM, x_t: Images, prediction: Images, t: Times, t_next: Times) -> Images:
    """The deterministic DDIM update (https://arxiv.org/abs/2010.02502, eq. 12 with sigma 0).

    The image that the prediction stands for is noised again, with the predicted noise, to
    `t_next`. The final step, to t=-1, returns that image itself.
    """
    x0, epsilon = process.to_x0_epsilon(prediction, x_t, t)
    return process.add_noise(x0, epsilon, t_next)


def euler_step(
    process: RectifiedFlow, x_t: Images, prediction: Images, t: Times, t_next: Times
) -> Images:
    """An Euler step along the velocity dx_t/dt; `t_next` is less than `t`, towards the image."""
    velocity = process.convert(prediction, x_t, t, "velocity")
    return x_t + (t_next - t).reshape(t.shape + (1,) * (x_t.ndim - 1)) * velocity


class _Sampler(NamedTuple):
    process: type[Process]
    step: Callable[[Process, Images, Images, Times, Times], Images]


_SAMPLERS = {
    "ddim": _Sampler(DDPM, ddim_step),
    "euler": _Sampler(RectifiedFlow, euler_step),
}


def sample(
    model_fn: ModelFn,
    process: Process,
    noise: Float[Array, "B ..."],
    *,
    steps: int,
    sampler: str,
) -> Samples:
    """Turns noise into images.

    Call it inside `jax.jit`, with `process`, `steps` and `sampler` static: the program is then
    traced once, whatever the seeds and the guidance scale.

    Args:
      model_fn: from x_t [B, ...] and the model's time [B] to the prediction [B, ...]; `guided`
        makes one with classifier-free guidance.
      process: the process that the model was trained under.
      noise: standard normal, as of `initial_noise`.
      steps: evaluations of the model.
      sampler: "ddim" for DDPM, "euler" for flow.

    Raises:
      LiditError: for an unknown sampler, one that does not fit the process, or a number of steps
        that is out of range.
    """
    fitting = [name for name, known in _SAMPLERS.items() if isinstance(process, known.process)]
    if sampler not in fitting:
        raise LiditError(
            f"sampler {sampler!r} does not fit process {process.name!r}: "
            f"choose one of {', '.join(map(repr, fitting))}"
        )
    step = _SAMPLERS[sampler].step
    times = jnp.asarray(process.sampling_times(steps))
    batch = noise.shape[0]

    def advance(
        carry: Samples, row: tuple[Int[Array, ""], Num[Array, ""], Num[Array, ""]]
    ) -> tuple[Samples, None]:
        x_t, nonfinite_step = carry
        index, t, t_next = row[0], jnp.full(batch, row[1]), jnp.full(batch, row[2])
        prediction = model_fn(x_t, process.model_time(t)).astype(jnp.float32)
        x_next = step(process, x_t, prediction, t, t_next)
        failed = (nonfinite_step < 0) & ~jnp.all(jnp.isfinite(x_next))
        return Samples(x_next, jnp.where(failed, index, nonfinite_step)), None

    start = Samples(noise.astype(jnp.float32), jnp.int32(-1))
    indices = jnp.arange(steps, dtype=jnp.int32)
    samples, _ = jax.lax.scan(advance, start, (indices, times[:-1], times[1:]))
    return samples


def initial_noise(
    seeds: Sequence[int] | Int[Array, "B"], shape: tuple[int, ...]
) -> Float[Array, "B ..."]:
    """Standard normal noise, float32, of one seed an image.

    An image's noise depends on its seed alone: it is bit-equal in any batch and on any mesh.

    Args:
      seeds: integers from 0 to 2**32 - 1, one an image.
      shape: of one image (or latent).

    Raises:
      LiditError: when a seed is out of range.
    """
    if isinstance(seeds, np.ndarray):
        seeds = seeds.tolist()  # NumPy would wrap a seed that is out of range
    try:
        seeds = jnp.asarray(seeds, jnp.uint32)
    except OverflowError as error:
        raise LiditError(f"seeds {seeds}: each must be from 0 to {2**32 - 1}") from error
    return jax.vmap(lambda seed: jax.random.normal(jax.random.key(seed), shape, jnp.float32))(seeds)
