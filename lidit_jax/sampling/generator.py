"""From conditions and noise to images: the one program behind sampling and training's grids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Bool, Float, Int, UInt8

from lidit_jax.autoencoders.frozen import ImageCodec, to_uint8
from lidit_jax.config.schema import SamplingConfig
from lidit_jax.diffusion.flow import RectifiedFlow
from lidit_jax.diffusion.guidance import Guidance
from lidit_jax.diffusion.noise import checked_seeds, initial_noise, step_noise, vary
from lidit_jax.diffusion.process import Process
from lidit_jax.diffusion.samplers import Known, Sampler, plan, sample
from lidit_jax.encoders.conditions import TextConditions, pad_conditions
from lidit_jax.errors import LiditError
from lidit_jax.models.lidit import LIDiT
from lidit_jax.sampling.guided_model import Blend, PromptedNetwork, Weaker
from lidit_jax.sampling.init_image import Start
from lidit_jax.sampling.settings import guidance_of, sampler_of


class Variation(NamedTuple):
    """Noise to turn towards."""

    seeds: Sequence[int]
    amount: Float[np.ndarray, "B"]


class _Inputs(NamedTuple):
    """The data of one call; what is None is not in the compiled program."""

    params: Any
    codec_params: Any
    conditions: TextConditions
    null: TextConditions
    noise: Float[Array, "B h w C"]
    seeds: Int[Array, "B"]
    guidance: Guidance | None
    blend: Blend | None
    image: Float[Array, "B H W 3"] | None
    mask: Bool[Array, "B H W"] | None
    weaker_params: Any


class Generator:
    """Samples images with guidance.

    It compiles once for each (number of images, size, sampler with its steps and times, guidance
    method, text length) and kind of job; seeds, prompts and guidance scales are data. Without any
    guidance (scale 1) the network runs on half the batch, which is a program of its own.
    """

    def __init__(
        self,
        model: LIDiT,
        process: Process,
        codec: ImageCodec,
        mean: Sequence[float],
        deviation: Sequence[float],
        crop: tuple[int, ...],
        shift_size: int = 0,
    ):
        """Binds a network to its process and latents.

        Args:
          model: the network.
          process: the process it was trained under.
          codec: the autoencoder of its latents.
          mean: of each latent channel, over the training data.
          deviation: likewise.
          crop: number of instruction tokens of each stream.
          shift_size: side in pixels for which the shift of a flow holds; other sizes scale it. 0
            keeps the shift at all sizes.
        """
        self._model, self._process, self._codec, self._crop = model, process, codec, crop
        self._mean = np.asarray(mean, np.float32)
        self._deviation = np.asarray(deviation, np.float32)
        self._shift_size = shift_size
        self._run = jax.jit(self._sample, static_argnames=("process", "sampler", "weaker_model"))

    def __call__(
        self,
        params: Any,
        conditions: TextConditions,
        null: TextConditions,
        *,
        seeds: Sequence[int],
        size: tuple[int, int],
        settings: SamplingConfig,
        guidance: float | Sequence[float] | None = None,
        start: Start | None = None,
        blend: Blend | None = None,
        variation: Variation | None = None,
        weaker: Weaker | None = None,
    ) -> UInt8[np.ndarray, "B H W 3"]:
        """Draws one image a condition.

        Args:
          params: weights of the network.
          conditions: of B prompts.
          null: of the empty prompt, batch 1, or of B negative prompts.
          seeds: one an image.
          size: (height, width) in pixels.
          settings: sampler, steps and guidance method.
          guidance: scale, or one an image; None for that of the settings.
          start: images to begin from.
          blend: second prompts.
          variation: noise to turn towards.
          weaker: a weaker network for autoguidance; `null` and `blend` are then not used.

        Raises:
          LiditError: when the size does not fit, or the network returns values that are not finite.
        """
        self.check_size(size)
        scales = np.asarray(settings.guidance if guidance is None else guidance, np.float32)
        unguided = np.all(scales == 1) and settings.guidance_method != "cfg_zero"
        sampler = sampler_of(settings, 1.0 if start is None else start.strength)
        inputs = _Inputs(
            params=params,
            codec_params=self._codec.params,
            **_padded(conditions, null, blend),
            noise=self._noise(seeds, size, variation),
            seeds=checked_seeds(seeds),
            guidance=None if unguided else guidance_of(settings, jnp.asarray(scales)),
            image=start and jnp.asarray(start.images, jnp.float32) / 127.5 - 1.0,
            mask=start and start.mask,
            weaker_params=weaker and weaker.params,
        )
        images, nonfinite_step = self._run(
            inputs,
            process=self._process_at(size),
            sampler=sampler,
            weaker_model=weaker and weaker.model,
        )
        if int(nonfinite_step) >= 0:
            raise LiditError(
                f"the network's prediction is not finite at sampling step {int(nonfinite_step)}: "
                "the weights are damaged or training diverged"
            )
        images = _on_host(images)
        if start is not None and start.mask is not None:
            images = np.where(start.mask[..., None], images, start.images)
        return images

    def check_size(self, size: tuple[int, int]) -> None:
        """Raises `LiditError` unless (height, width) in pixels are multiples of a patch."""
        step = self.size_step
        if any(side <= 0 or side % step for side in size):
            height, width = size
            nearest = "x".join(str(max(round(side / step), 1) * step) for side in (width, height))
            raise LiditError(  # as --size has it: width first
                f"size {width}x{height}: each side must be a multiple of {step} (patch x "
                f"downsampling of the autoencoder); the nearest size is {nearest} (width x height)"
            )

    @property
    def size_step(self) -> int:
        """What each side must be a multiple of, in pixels."""
        return self._codec.downsample * self._model.config.patch

    def _noise(
        self, seeds: Sequence[int], size: tuple[int, int], variation: Variation | None
    ) -> Float[Array, "B h w C"]:
        """Drawn outside of the large program, in which it might be rounded differently."""
        down = self._codec.downsample
        shape = (size[0] // down, size[1] // down, self._codec.channels)
        noise = initial_noise(seeds, shape)
        if variation is None:
            return noise
        return vary(noise, initial_noise(variation.seeds, shape), variation.amount)

    def _process_at(self, size: tuple[int, int]) -> Process:
        if not self._shift_size or not isinstance(self._process, RectifiedFlow):
            return self._process
        return self._process.at_resolution(math.sqrt(size[0] * size[1]) / self._shift_size)

    def _sample(
        self,
        inputs: _Inputs,
        *,
        process: Process,
        sampler: Sampler,
        weaker_model: LIDiT | None,
    ) -> tuple[UInt8[Array, "B H W 3"], Array]:
        x_t, known = inputs.noise, None
        if inputs.image is not None:
            latents = self._codec.encode(inputs.codec_params, inputs.image)
            x0 = (latents - self._mean) / self._deviation
            times, _ = plan(process, sampler)
            x_t = jnp.float32(times.signal[0]) * x0 + jnp.float32(times.sigma[0]) * x_t
            if inputs.mask is not None:
                known = Known(x0, ~_any_pixel(inputs.mask, self._codec.downsample))
        network = PromptedNetwork(
            self._model,
            inputs.params,
            self._crop,
            inputs.conditions,
            null=None if inputs.guidance is None else inputs.null,
            blend=inputs.blend,
            weaker=weaker_model and Weaker(weaker_model, inputs.weaker_params),
        )
        samples = sample(
            network.whole() if sampler.cache_interval == 1 else network.reusing(),
            process,
            x_t,
            sampler,
            guidance=inputs.guidance,
            step_noise=step_noise(inputs.seeds, x_t.shape[1:]),
            known=known,
        )
        latents = samples.x0 * self._deviation + self._mean
        return to_uint8(self._codec.decode(inputs.codec_params, latents)), samples.nonfinite_step


def _padded(
    conditions: TextConditions, null: TextConditions, blend: Blend | None
) -> dict[str, TextConditions | Blend | None]:
    """All prompts at the length of the longest."""
    prompts = [conditions] + ([blend.conditions] if blend else [])
    lengths = []
    for k, null_mask in enumerate(null.masks):
        length = max(p.masks[k].shape[1] for p in prompts)
        # The empty prompt may come with more padding than the others have room for.
        tokens = int(np.sum(null_mask, axis=1).max())
        lengths.append(length if tokens <= length else null_mask.shape[1])
    return {
        "conditions": pad_conditions(conditions, lengths),
        "null": pad_conditions(null, lengths),
        "blend": blend and Blend(pad_conditions(blend.conditions, lengths), blend.weight),
    }


def _any_pixel(mask: Bool[Array, "B H W"], down: int) -> Bool[Array, "B h w 1"]:
    """Whether any pixel of each latent pixel is to be painted."""
    b, height, width = mask.shape
    blocks = jnp.reshape(mask, (b, height // down, down, width // down, down))
    return jnp.any(blocks, axis=(2, 4))[..., None]


def _on_host(array: jax.Array) -> np.ndarray:
    """The whole array on every process, also where XLA has left it spread over all of them."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return multihost_utils.process_allgather(array, tiled=True)
