"""Prompts in, images out: a trained model with its encoders and its autoencoder."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8

from lidit_jax.config import Config, SamplingConfig
from lidit_jax.diffusion import process as processes
from lidit_jax.diffusion.samplers import fitting_samplers
from lidit_jax.encoders.conditions import PromptEncoders, TextConditions
from lidit_jax.errors import LiditError
from lidit_jax.generation import Blend, Generator, Start, Variation, Weaker
from lidit_jax.image_request import ImageRequest, image_requests
from lidit_jax.models.image_codec import ImageCodec, load_codec
from lidit_jax.models.lidit import LIDiT
from lidit_jax.sampling_settings import check_settings, override
from lidit_jax.saved_model import load_model, model_folder
from lidit_jax.weights.bundle import is_bundle

_BATCH = 16
_STRENGTH = 0.6


class Pipeline:
    """`Pipeline.from_checkpoint("demo")(["a red circle"])` returns uint8 images [B, H, W, 3]."""

    def __init__(self, params: Any, config: Config, metadata: dict[str, Any], codec: ImageCodec):
        """Joins weights with what they were trained with.

        Args:
          params: weights of `LIDiT(config.model)`.
          config: the run's configuration.
          metadata: what the checkpoint remembers beside it.
          codec: the autoencoder of its latents.

        Raises:
          LiditError: when an encoder or the autoencoder is not the one of the checkpoint.
        """
        if codec.fingerprint != metadata["autoencoder"]:
            raise LiditError(
                f"config.vae.source={config.vae.source!r} is not the autoencoder of this "
                "checkpoint: put the one it was trained with back"
            )
        self.config = config
        self._metadata = metadata
        self._model = LIDiT(config.model)
        self._params = jax.tree.map(jax.numpy.asarray, params)
        self._encoders = PromptEncoders(config.encoders)
        self._encoders.check(metadata["encoders"])
        self._null, crop = self._encoders.encode([""])
        self._process = processes.from_config(config.diffusion)
        self._generator = Generator(
            self._model,
            self._process,
            codec,
            metadata["latents"]["mean"],
            metadata["latents"]["deviation"],
            crop,
            config.data.image_size if config.diffusion.resolution_shift else 0,
        )

    @classmethod
    def from_checkpoint(cls, checkpoint: str | Path, *, raw: bool = False) -> Pipeline:
        """Loads "demo", an exported folder, a workdir's newest checkpoint or one of the others.

        Args:
          checkpoint: name or path.
          raw: the raw weights of a workdir instead of their moving average.

        Raises:
          LiditError: when there is no such checkpoint, it is damaged, or its encoders are missing.
        """
        folder = model_folder(checkpoint)
        params, config, metadata = load_model(folder, raw=raw)
        own_codec = folder / "vae" if is_bundle(folder) else None
        if config.training.task != "lidit":
            raise LiditError(f"{folder} holds an autoencoder: name a text-to-image checkpoint")
        codec = load_codec(config.vae, own_codec)
        return cls(params, config, metadata, codec)

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of the network's weights: the same for the same images."""
        digest = hashlib.sha256()
        for name, leaf in sorted(flax.traverse_util.flatten_dict(self._params, sep="/").items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()

    @property
    def size_step(self) -> int:
        """What each side of an image must be a multiple of, in pixels."""
        return self._generator.size_step

    @property
    def samplers(self) -> tuple[str, ...]:
        """The names of the samplers that fit."""
        return fitting_samplers(self._process)

    def settings(self, **changes: Any) -> SamplingConfig:
        """The checkpoint's sampling settings with changes (None: no change), checked.

        Raises:
          LiditError: for an unknown setting, or a value that does not fit the checkpoint.
        """
        settings = override(self.config.sampling, changes)
        check_settings(settings, self._process)
        return settings

    def __call__(
        self,
        prompts: Sequence[str],
        *,
        size: int | tuple[int, int] | None = None,
        seed: int | Sequence[int] = 0,
        guidance: float | Sequence[float] | None = None,
        negative_prompt: str | Sequence[str] = "",
        blend_with: str | Sequence[str] = "",
        blend: float | Sequence[float] = 0.0,
        variation: float | Sequence[float] = 0.0,
        variation_seed: int | Sequence[int] = 0,
        image: UInt8[np.ndarray, "H W 3"] | UInt8[np.ndarray, "B H W 3"] | None = None,
        mask: Bool[np.ndarray, "H W"] | None = None,
        strength: float | None = None,
        weaker: Pipeline | None = None,
        **settings: Any,
    ) -> UInt8[np.ndarray, "B H W 3"]:
        """Draws one image a prompt.

        Args:
          prompts: what to see; none may be empty.
          size: side, or (height, width), in pixels; None for the size of `image` or of training.
          seed: image i is drawn from seed + i, whatever the batch; or one seed an image.
          guidance: guidance scale, or one an image; 1 switches it off; None for the checkpoint's.
          negative_prompt: what to move away from, or one an image.
          blend_with: a second prompt, or one an image.
          blend: its weight, or one an image: 0 draws the first prompt, 1 the second.
          variation: how far to turn the noise away from the seed's, 0 to 1: small values give
            variations of an image.
          variation_seed: the noise to turn towards.
          image: an image to begin from, or one a prompt.
          mask: True where to paint the image anew; the rest stays as it is.
          strength: how much of an image to redraw, above 0 to 1; None for 0.6, with a mask 1.
          weaker: a weaker model of the same kind to move away from (autoguidance) instead of the
            empty prompt: e.g. an earlier checkpoint of the same run.
          settings: any field of `config.sampling` (sampler, steps, spacing, guidance_method, ...);
            None, and what is left out, is as the checkpoint says.

        Raises:
          LiditError: without prompts, for an empty or too long one, or a setting that does not fit.
        """
        checked = self.settings(**settings)
        requests = image_requests(
            prompts,
            seed=seed,
            guidance=checked.guidance if guidance is None else guidance,
            negative_prompt=negative_prompt,
            blend_with=blend_with,
            blend=blend,
            variation=variation,
            variation_seed=variation_seed,
        )
        start = self._start(image, mask, strength, len(requests))
        if size is None:
            size = self.config.data.image_size if start is None else start.images.shape[1:3]
        size = (size, size) if isinstance(size, int) else tuple(size)
        if start is not None and start.images.shape[1:3] != size:
            height, width = start.images.shape[1:3]
            raise LiditError(
                f"image is {height}x{width} and size {size[0]}x{size[1]}: resize the image"
            )
        self._generator.check_size(size)
        if weaker is not None:
            self._check_weaker(weaker, requests)
        return self.draw(requests, checked, size, start=start, weaker=weaker)

    def draw(
        self,
        requests: Sequence[ImageRequest],
        settings: SamplingConfig,
        size: tuple[int, int],
        *,
        start: Start | None = None,
        weaker: Pipeline | None = None,
    ) -> UInt8[np.ndarray, "B H W 3"]:
        """Draws what `__call__` has put together.

        Args:
          requests: one an image.
          settings: of `settings`.
          size: (height, width) in pixels.
          start: images to begin from, one a request.
          weaker: as for `__call__`.
        """
        batches = []
        for first in range(0, len(requests), _BATCH):
            batch = list(requests[first : first + _BATCH])
            # A last, shorter batch is filled up, so that it does not compile a second program.
            rows = [*range(len(batch))]
            if len(requests) > _BATCH:
                rows += [len(batch) - 1] * (_BATCH - len(batch))
            part = start
            if start is not None:
                of_rows = [first + row for row in rows]
                mask = None if start.mask is None else start.mask[of_rows]
                part = Start(start.images[of_rows], start.strength, mask)
            images = self._draw_batch([batch[row] for row in rows], settings, size, part, weaker)
            batches.append(images[: len(batch)])
        return np.concatenate(batches)

    def _draw_batch(
        self,
        requests: list[ImageRequest],
        settings: SamplingConfig,
        size: tuple[int, int],
        start: Start | None,
        weaker: Pipeline | None,
    ) -> UInt8[np.ndarray, "B H W 3"]:
        blend = variation = None
        if any(request.blend for request in requests):
            # An image without a second prompt blends with its own, at weight 0.
            seconds = [request.blend_with or request.prompt for request in requests]
            blend = Blend(self._encode(seconds), _column(requests, "blend"))
        if any(request.variation for request in requests):
            seeds = [request.variation_seed for request in requests]
            variation = Variation(seeds, _column(requests, "variation"))
        negatives = [request.negative_prompt for request in requests]
        return self._generator(
            self._params,
            self._encode([request.prompt for request in requests]),
            self._encode(negatives) if any(negatives) else self._null,
            seeds=[request.seed for request in requests],
            size=size,
            settings=settings,
            guidance=_column(requests, "guidance"),
            start=start,
            blend=blend,
            variation=variation,
            weaker=weaker and Weaker(weaker._model, weaker._params),
        )

    def _encode(self, prompts: list[str]) -> TextConditions:
        return self._encoders.encode(prompts)[0]

    def _start(
        self, image: np.ndarray | None, mask: np.ndarray | None, strength: float | None, count: int
    ) -> Start | None:
        if image is None:
            if mask is not None or strength is not None:
                raise LiditError("mask and strength are for an image to begin from: give image")
            return None
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim not in (3, 4) or image.shape[-1] != 3:
            raise LiditError(
                f"image is {image.dtype} {list(image.shape)}: it must be uint8 [H, W, 3], or one "
                "such image a prompt"
            )
        images = np.broadcast_to(image, (count, *image.shape[-3:]))
        if mask is not None:
            mask = np.asarray(mask, bool)
            if mask.shape[-2:] != images.shape[1:3]:
                raise LiditError(
                    f"mask is {mask.shape} and the image {images.shape[1:3]}: resize the mask"
                )
            mask = np.broadcast_to(mask, images.shape[:3])
        strength = (_STRENGTH if mask is None else 1.0) if strength is None else strength
        if not 0 < strength <= 1:
            raise LiditError(f"strength {strength}: must be greater than 0 and at most 1")
        return Start(images, strength, mask)

    def _check_weaker(self, weaker: Pipeline, requests: list[ImageRequest]) -> None:
        """Both networks must mean the same by a latent, a time, a prediction and a prompt."""
        for name in ("encoders", "autoencoder", "latents"):
            if weaker._metadata[name] != self._metadata[name]:
                raise LiditError(
                    f"the weaker model has other {name}: take an earlier checkpoint of the same run"
                )
        if weaker._process.prediction != self._process.prediction or (
            weaker._process.name != self._process.name
        ):
            raise LiditError("the weaker model predicts something else: take one of the same run")
        if any(request.negative_prompt or request.blend for request in requests):
            raise LiditError("autoguidance has no negative prompt and no blend: leave them out")


def _column(requests: Sequence[ImageRequest], field: str) -> Float[np.ndarray, "B"]:
    return np.asarray([getattr(request, field) for request in requests], np.float32)
