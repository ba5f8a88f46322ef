"""From conditions and noise to images: the one program behind sampling and training's grids."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from lidit_jax.diffusion.guidance import concatenate_conditions, guided
from lidit_jax.diffusion.process import Process
from lidit_jax.diffusion.samplers import initial_noise, sample
from lidit_jax.encoders.conditions import TextConditions, pad_conditions
from lidit_jax.errors import LiditError
from lidit_jax.models.image_codec import ImageCodec, to_uint8
from lidit_jax.models.lidit import LIDiT


class Generator:
    """Samples images with classifier-free guidance.

    It compiles once for each (number of images, size, steps, sampler, text length); seeds, prompts
    and guidance scales are data.
    """

    def __init__(
        self,
        model: LIDiT,
        process: Process,
        codec: ImageCodec,
        mean: Sequence[float],
        deviation: Sequence[float],
        crop: tuple[int, ...],
    ):
        """Binds a network to its process and latents.

        Args:
          model: the network.
          process: the process it was trained under.
          codec: the autoencoder of its latents.
          mean: of each latent channel, over the training data.
          deviation: likewise.
          crop: number of instruction tokens of each stream.
        """
        self._model, self._process, self._codec, self._crop = model, process, codec, crop
        self._mean = np.asarray(mean, np.float32)
        self._deviation = np.asarray(deviation, np.float32)
        self._run = jax.jit(self._sample, static_argnames=("steps", "sampler"))

    def __call__(
        self,
        params: Any,
        conditions: TextConditions,
        null: TextConditions,
        *,
        seeds: Sequence[int],
        size: tuple[int, int],
        steps: int,
        guidance: float,
        sampler: str,
    ) -> UInt8[np.ndarray, "B H W 3"]:
        """Draws one image a condition.

        Args:
          params: weights of the network.
          conditions: of B prompts.
          null: of the empty prompt, batch 1.
          seeds: one an image.
          size: (height, width) in pixels.
          steps: evaluations of the network.
          guidance: scale; 1 for none.
          sampler: see `lidit_jax.diffusion.samplers`.

        Raises:
          LiditError: when the size does not fit, or the network returns values that are not finite.
        """
        step = self._codec.downsample * self._model.config.patch
        if any(side <= 0 or side % step for side in size):
            raise LiditError(
                f"size {size[0]}x{size[1]}: each side must be a multiple of {step} "
                "(patch x downsampling of the autoencoder)"
            )
        shape = (size[0] // self._codec.downsample, size[1] // self._codec.downsample)
        noise = initial_noise(seeds, (*shape, self._codec.channels))
        lengths = [f.shape[1] for f in conditions.features]
        images, nonfinite_step = self._run(
            params,
            self._codec.params,
            conditions,
            pad_conditions(null, lengths),
            noise,
            jnp.float32(guidance),
            steps=steps,
            sampler=sampler,
        )
        if int(nonfinite_step) >= 0:
            raise LiditError(
                f"the network's prediction is not finite at sampling step {int(nonfinite_step)}: "
                "the weights are damaged or training diverged"
            )
        return np.asarray(images)

    def _sample(
        self,
        params: Any,
        codec_params: Any,
        conditions: TextConditions,
        null: TextConditions,
        noise: Float[Array, "B h w C"],
        guidance: Float[Array, ""],
        *,
        steps: int,
        sampler: str,
    ) -> tuple[UInt8[Array, "B H W 3"], Array]:
        both = concatenate_conditions(conditions, null)
        network = functools.partial(
            self._model.apply,
            {"params": params},
            features=both.features,
            masks=both.masks,
            crop=self._crop,
        )
        samples = sample(
            guided(network, guidance), self._process, noise, steps=steps, sampler=sampler
        )
        latents = samples.x0 * self._deviation + self._mean
        return to_uint8(self._codec.decode(codec_params, latents)), samples.nonfinite_step
