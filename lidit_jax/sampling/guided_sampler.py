"""Compiled sampling from text conditions and noise to images, with guidance."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.spmd import with_logical_constraint
from jax.experimental import multihost_utils
from jaxtyping import Array, Bool, Float, Int, UInt8

from lidit_jax.autoencoders.frozen import FrozenAutoencoder, to_uint8
from lidit_jax.diffusion.flow import RectifiedFlow
from lidit_jax.diffusion.guidance import Guidance
from lidit_jax.diffusion.noise import checked_seeds, initial_noise, interpolate_noise, step_noise
from lidit_jax.diffusion.process import Process
from lidit_jax.diffusion.samplers import (
    KnownRegion,
    Sampler,
    SamplerLoop,
    sampler_loop,
    solver_tables,
)
from lidit_jax.encoders.conditions import TextConditions, pad_conditions
from lidit_jax.errors import LiditError
from lidit_jax.io.progress import Progress
from lidit_jax.models.lidit import LIDiT
from lidit_jax.sampling.guided_model import GuidedModel
from lidit_jax.sampling.image_batch import Blend, GuideModel, ImageBatch
from lidit_jax.sampling.settings import guidance_of, sampler_of
from lidit_jax.sampling.sizes import check_size

_REPORT_SECONDS = 5.0
"""Seconds between two reports of progress within a batch."""


class _Inputs(NamedTuple):
    """Arrays of one call; what is None is not in the compiled program."""

    params: Any
    autoencoder_params: Any
    conditions: TextConditions
    unconditional: TextConditions
    noise: Float[Array, "B h w C"] | None
    seeds: Int[Array, " B"]
    guidance: Guidance | None
    blend: Blend | None
    image: Float[Array, "B H W 3"] | None
    mask: Bool[Array | np.ndarray, "B H W"] | None
    guide_params: Any


class GuidedSampler:
    """Sampler of image batches with guidance.

    It compiles once per (number of images, size, sampler with its steps and times, guidance method,
    text length) and kind of input; seeds, prompts and guidance scales are data. Without guidance
    (scale 1) the network runs on half the batch, which is a separate program.

    There are three programs: before the evaluations of the network, a number of evaluations, and
    after them. So progress can be reported between evaluations; a callback in one large program
    would disable JAX's compilation cache for it.
    """

    def __init__(
        self,
        model: LIDiT,
        process: Process,
        autoencoder: FrozenAutoencoder,
        mean: Sequence[float] | Float[np.ndarray, " C"],
        std: Sequence[float] | Float[np.ndarray, " C"],
        prefix_lengths: tuple[int, ...],
        shift_size: int = 0,
    ):
        """Combine a network with its diffusion process and its autoencoder.

        Args:
          model: the network.
          process: the diffusion process of its training.
          autoencoder: the autoencoder of its latents.
          mean: of each latent channel, over the training data.
          std: likewise.
          prefix_lengths: number of instruction tokens of each stream.
          shift_size: side in pixels for which the shift of a flow holds; other sizes scale it. 0
            keeps the shift at all sizes.
        """
        self._model, self._process, self._autoencoder, self._prefix_lengths = (
            model,
            process,
            autoencoder,
            prefix_lengths,
        )
        self._mean = np.asarray(mean, np.float32)
        self._std = np.asarray(std, np.float32)
        self._shift_size = shift_size
        statics = ("process", "sampler", "guide_model")
        self._begin = jax.jit(self._begin_drawing, static_argnames=statics)
        self._evaluate = jax.jit(self._run_part, static_argnames=statics, donate_argnames="carry")
        self._finish = jax.jit(self._decode)
        self._programs: set[Any] = set()

    def __call__(
        self, params: Any, batch: ImageBatch, progress: Progress | None = None
    ) -> UInt8[np.ndarray, "B H W 3"]:
        """Generate the images of a batch.

        Args:
          params: weights of the network.
          batch: conditions, seeds and size of the images.
          progress: receives the number of finished evaluations, and when a program is compiled.
            It changes no image. It is not supported with several processes, which would report
            at different times.

        Raises:
          LiditError: when the size does not fit, or the network returns values that are not finite.
        """
        check_size(batch.size, self._autoencoder.downsample * self._model.config.patch)
        init, guide = batch.init, batch.guide
        process = self._process_at(batch.size)
        sampler = sampler_of(batch.settings, 1.0 if init is None else init.strength)
        statics = {"process": process, "sampler": sampler, "guide_model": guide and guide.model}
        inputs = self._inputs(params, batch)
        program = (*statics.values(), *_shapes(inputs))
        if progress and program not in self._programs:
            height, width = batch.size
            progress.note(f"compiling for batches of {len(batch.seeds)} at {width}x{height} px")
        self._programs.add(program)

        carry, known = self._begin(inputs, **statics)
        given = inputs._replace(noise=None, image=None, mask=None)  # the carry takes their place

        def run(carry: Any, start: int, stop: int) -> Any:
            return self._evaluate(given, known, carry, start, stop, **statics)

        carry = _in_parts(run, carry, len(solver_tables(process, sampler)[1].at), progress)
        images = self._finish(inputs.autoencoder_params, carry.x)
        if int(carry.nonfinite_step) >= 0:
            raise LiditError(
                "the network's prediction is not finite at sampling step "
                f"{int(carry.nonfinite_step)}: the weights are damaged or training diverged"
            )
        images = _on_host(images)
        if init is not None and init.mask is not None:
            images = np.where(init.mask[..., None], images, init.images)
        return images

    def _inputs(self, params: Any, batch: ImageBatch) -> _Inputs:
        settings, init, guide = batch.settings, batch.init, batch.guide
        scales = settings.guidance if batch.guidance is None else batch.guidance
        scales = np.asarray(scales, np.float32)
        unguided = np.all(scales == 1) and settings.guidance_method != "cfg_zero"
        conditions, unconditional, blend = _of_one_length(batch)
        return _Inputs(
            params=params,
            autoencoder_params=self._autoencoder.params,
            conditions=conditions,
            unconditional=unconditional,
            noise=self._noise(batch),
            seeds=checked_seeds(batch.seeds),
            guidance=None if unguided else guidance_of(settings, jnp.asarray(scales)),
            blend=blend,
            image=init and jnp.asarray(init.images, jnp.float32) / 127.5 - 1.0,
            mask=init and init.mask,
            guide_params=guide and guide.params,
        )

    def _noise(self, batch: ImageBatch) -> Float[Array, "B h w C"]:
        """Generate the noise outside of the large program, which might round it differently."""
        down = self._autoencoder.downsample
        shape = (batch.size[0] // down, batch.size[1] // down, self._autoencoder.channels)
        noise = initial_noise(batch.seeds, shape)
        if batch.variation is None:
            return noise
        amount = jnp.asarray(batch.variation.amount)
        return interpolate_noise(noise, initial_noise(batch.variation.seeds, shape), amount)

    def _process_at(self, size: tuple[int, int]) -> Process:
        if not self._shift_size or not isinstance(self._process, RectifiedFlow):
            return self._process
        return self._process.at_resolution(math.sqrt(size[0] * size[1]) / self._shift_size)

    def _begin_drawing(
        self, inputs: _Inputs, *, process: Process, sampler: Sampler, guide_model: LIDiT | None
    ) -> tuple[Any, KnownRegion | None]:
        """Return the initial state of the sampling loop, and the known part of the images."""
        x_t, known = inputs.noise, None
        assert x_t is not None  # only what comes after this runs without
        if inputs.image is not None:
            latents = self._autoencoder.encode(inputs.autoencoder_params, inputs.image)
            x0 = (latents - self._mean) / self._std
            times, _ = solver_tables(process, sampler)
            x_t = jnp.float32(times.signal[0]) * x0 + jnp.float32(times.sigma[0]) * x_t
            if inputs.mask is not None:
                known = KnownRegion(x0, ~_any_pixel(inputs.mask, self._autoencoder.downsample))
        first = self._loop(inputs, x_t, known, process, sampler, guide_model).first
        return _split_over_images(first), known

    def _run_part(
        self,
        inputs: _Inputs,
        known: KnownRegion | None,
        carry: Any,
        start: Int[Array, ""],
        stop: Int[Array, ""],
        *,
        process: Process,
        sampler: Sampler,
        guide_model: LIDiT | None,
    ) -> Any:
        """Run the evaluations from `start` to `stop`."""
        loop = self._loop(inputs, carry.x, known, process, sampler, guide_model)
        return _split_over_images(loop.run(carry, start, stop))

    def _decode(
        self, autoencoder_params: Any, x0: Float[Array, "B h w C"]
    ) -> UInt8[Array, "B H W 3"]:
        latents = x0 * self._std + self._mean
        return to_uint8(self._autoencoder.decode(autoencoder_params, latents))

    def _loop(
        self,
        inputs: _Inputs,
        x_t: Float[Array, "B h w C"],
        known: KnownRegion | None,
        process: Process,
        sampler: Sampler,
        guide_model: LIDiT | None,
    ) -> SamplerLoop:
        model = GuidedModel(
            self._model,
            inputs.params,
            self._prefix_lengths,
            inputs.conditions,
            unconditional=None if inputs.guidance is None else inputs.unconditional,
            blend=inputs.blend,
            guide=guide_model and GuideModel(guide_model, inputs.guide_params),
        )
        return sampler_loop(
            model.model_fn() if sampler.cache_interval == 1 else model.cached(),
            process,
            x_t,
            sampler,
            guidance=inputs.guidance,
            step_noise=step_noise(inputs.seeds, x_t.shape[1:]),
            known=known,
        )


def _in_parts(
    run: Callable[[Any, int, int], Any], carry: Any, total: int, progress: Progress | None
) -> Any:
    """Run all evaluations at once, or in parts between which progress is reported.

    Args:
      run: maps the carry, and the first and last evaluation of a part, to the next carry.
      carry: input of the first part.
      total: number of evaluations.
      progress: called after every part that took long enough, and at the end.
    """
    if progress is None:
        return run(carry, 0, total)
    done, count, reported = 0, 1, time.perf_counter()
    while done < total:
        begun = time.perf_counter()
        stop = min(done + count, total)
        carry = jax.block_until_ready(run(carry, done, stop))
        done, now = stop, time.perf_counter()
        if now - reported >= _REPORT_SECONDS or done == total:
            progress(done, total)
            reported = now
        count = max(int(count * _REPORT_SECONDS / max(now - begun, 1e-6)), 1)
    return carry


def _of_one_length(batch: ImageBatch) -> tuple[TextConditions, TextConditions, Blend | None]:
    """Pad the prompts, unconditional prompts and second prompts of a batch to the same length."""
    conditions, unconditional, blend = batch.conditions, batch.unconditional, batch.blend
    prompts = [conditions] + ([blend.conditions] if blend else [])
    lengths = []
    for k, mask in enumerate(unconditional.masks):
        length = max(p.masks[k].shape[1] for p in prompts)
        # The empty prompt may come with more padding than the others.
        tokens = int(np.sum(mask, axis=1).max())
        lengths.append(length if tokens <= length else mask.shape[1])
    return (
        pad_conditions(conditions, lengths),
        pad_conditions(unconditional, lengths),
        blend and Blend(pad_conditions(blend.conditions, lengths), blend.weight),
    )


def _split_over_images(carry: Any) -> Any:
    """Constrain the carry to one sharding, so that all parts use the same program."""
    return jax.tree.map(
        lambda leaf: with_logical_constraint(leaf, ("batch", *[None] * leaf.ndim)[: leaf.ndim]),
        carry,
    )


def _shapes(inputs: _Inputs) -> tuple[Any, ...]:
    """Return the shapes that, with the static arguments, identify a compiled program."""
    leaves, structure = jax.tree.flatten(inputs)
    return structure, tuple((np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)


def _any_pixel(mask: Bool[Array | np.ndarray, "B H W"], down: int) -> Bool[Array, "B h w 1"]:
    """Return per latent pixel whether any of its image pixels is masked for painting."""
    b, height, width = mask.shape
    blocks = jnp.reshape(mask, (b, height // down, down, width // down, down))
    return jnp.any(blocks, axis=(2, 4))[..., None]


def _on_host(array: jax.Array) -> np.ndarray:
    """Return the whole array on every process, gathering it if it is sharded over them."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return multihost_utils.process_allgather(array, tiled=True)
