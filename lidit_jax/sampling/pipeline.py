"""Prompts in, images out: a trained model with its encoders and its autoencoder."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, UInt8

from lidit_jax.autoencoders.frozen import ImageCodec, load_codec
from lidit_jax.checkpoints.opener import open_model
from lidit_jax.checkpoints.provenance import Provenance
from lidit_jax.config.schema import Config, MeshConfig, SamplingConfig
from lidit_jax.diffusion import process as processes
from lidit_jax.diffusion.samplers import fitting_samplers
from lidit_jax.encoders.conditions import PromptEncoders, TextConditions
from lidit_jax.errors import LiditError
from lidit_jax.models.lidit import LIDiT
from lidit_jax.parallel.mesh import BATCH_AXES, check_model_divides, make_mesh
from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES, parameter_shardings
from lidit_jax.sampling.generator import Generator, Variation
from lidit_jax.sampling.guided_model import Blend, Weaker
from lidit_jax.sampling.init_image import Start, start_from
from lidit_jax.sampling.request import ImageRequest, image_requests
from lidit_jax.sampling.settings import check_settings, override

_BATCH = 16


class Pipeline:
    """`Pipeline.from_checkpoint("demo")(["a red circle"])` returns uint8 images [B, H, W, 3]."""

    def __init__(
        self,
        params: Any,
        config: Config,
        provenance: Provenance,
        codec: ImageCodec,
        mesh: Mesh | None = None,
    ):
        """Joins weights with what they were trained with.

        Args:
          params: weights of `LIDiT(config.model)`, where they belong.
          config: the run's configuration.
          provenance: what the checkpoint remembers beside it.
          codec: the autoencoder of its latents.
          mesh: the devices that share the weights and the images; None for the first one.

        Raises:
          LiditError: when an encoder or the autoencoder is not the one of the checkpoint.
        """
        if codec.fingerprint != provenance.autoencoder:
            raise LiditError(
                f"config.vae.source={config.vae.source!r} is not the autoencoder of this "
                "checkpoint: put the one it was trained with back"
            )
        self.config = config
        self._provenance = provenance
        self._model = LIDiT(config.model)
        self._params = jax.tree.map(jax.numpy.asarray, params)
        self._mesh = mesh
        self._encoders = PromptEncoders(config.encoders, mesh)
        self._encoders.check(provenance.encoders)
        self._null, crop = self._encoders.encode([""])
        self._process = processes.from_config(config.diffusion)
        self._generator = Generator(
            self._model,
            self._process,
            codec.on(mesh) if mesh else codec,
            provenance.latent_mean,
            provenance.latent_deviation,
            crop,
            config.data.image_size if config.diffusion.resolution_shift else 0,
        )

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | Path, *, raw: bool = False, mesh: MeshConfig | None = None
    ) -> Pipeline:
        """Loads "demo", an exported folder, a workdir's newest checkpoint or one of the others.

        Args:
          checkpoint: name or path.
          raw: the raw weights of a workdir instead of their moving average.
          mesh: splits network and encoders over all devices, straight from their files, and the
            autoencoder, such as `MeshConfig(tensor=4)`; None uses the first device alone.

        Raises:
          LiditError: when there is no such checkpoint, it is damaged, its encoders are missing, or
            the mesh does not divide it.
        """
        model = open_model(checkpoint, raw=raw)
        config, provenance = model.config, model.provenance
        if config.training.task != "lidit":
            raise LiditError(
                f"{model.folder} holds an autoencoder: name a text-to-image checkpoint"
            )
        devices, shardings = mesh and make_mesh(mesh), None
        if devices:
            check_model_divides(config, devices)
            streams = len(provenance.encoders)
            shardings = parameter_shardings(LIDiT(config.model), streams, devices)
        codec = load_codec(config.vae, model.own_autoencoder)
        return cls(model.load(shardings), config, provenance, codec, devices)

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
    def process(self) -> processes.Process:
        """The diffusion process that the model was trained under."""
        return self._process

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

    def encode(self, prompts: Sequence[str]) -> TextConditions:
        """What the network reads of prompts. Raises `LiditError` when one is too long."""
        return self._encoders.encode(prompts)[0]

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
        start = start_from(image, mask, strength, len(requests))
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
        conditions: TextConditions | None = None,
    ) -> UInt8[np.ndarray, "B H W 3"]:
        """Draws what `__call__` has put together.

        Args:
          requests: one an image.
          settings: of `settings`.
          size: (height, width) in pixels.
          start: images to begin from, one a request.
          weaker: as for `__call__`.
          conditions: of `encode`, for prompts that are drawn again and again; None encodes them.
        """
        batches = []
        shares = math.prod(self._mesh.shape[axis] for axis in BATCH_AXES) if self._mesh else 1
        batch = -(-_BATCH // shares) * shares
        for first in range(0, len(requests), batch):
            rows = [*range(first, min(first + batch, len(requests)))]
            count = len(rows)
            # A last, shorter batch is filled up, so that it does not compile a second program; and
            # any batch to an equal share for each device.
            full = batch if len(requests) > batch else -(-count // shares) * shares
            rows += rows[-1:] * (full - count)
            images = self._draw_batch(
                [requests[row] for row in rows],
                settings,
                size,
                start and start.rows(rows),
                weaker,
                conditions and _rows(conditions, rows),
            )
            batches.append(images[:count])
        return np.concatenate(batches)

    def _draw_batch(
        self,
        requests: list[ImageRequest],
        settings: SamplingConfig,
        size: tuple[int, int],
        start: Start | None,
        weaker: Pipeline | None,
        conditions: TextConditions | None,
    ) -> UInt8[np.ndarray, "B H W 3"]:
        blend = variation = None
        if any(request.blend for request in requests):
            # An image without a second prompt blends with its own, at weight 0.
            seconds = [request.blend_with or request.prompt for request in requests]
            blend = Blend(self.encode(seconds), _column(requests, "blend"))
        if any(request.variation for request in requests):
            seeds = [request.variation_seed for request in requests]
            variation = Variation(seeds, _column(requests, "variation"))
        negatives = [request.negative_prompt for request in requests]
        conditions = conditions or self.encode([request.prompt for request in requests])
        null = self.encode(negatives) if any(negatives) else self._null
        with self._on_mesh():
            return self._generator(
                self._params,
                conditions,
                null,
                seeds=[request.seed for request in requests],
                size=size,
                settings=settings,
                guidance=_column(requests, "guidance"),
                start=start,
                blend=blend,
                variation=variation,
                weaker=weaker and Weaker(weaker._model, weaker._params),
            )

    @contextmanager
    def _on_mesh(self) -> Iterator[None]:
        if self._mesh is None:
            yield
        else:
            with jax.set_mesh(self._mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
                yield

    def _check_weaker(self, weaker: Pipeline, requests: list[ImageRequest]) -> None:
        """Both networks must mean the same by a latent, a time, a prediction and a prompt."""
        theirs, ours = weaker._provenance.to_json(), self._provenance.to_json()
        for name in ("encoders", "autoencoder", "latents"):
            if theirs[name] != ours[name]:
                raise LiditError(
                    f"the weaker model has other {name}: take an earlier checkpoint of the same run"
                )
        if weaker._process.prediction != self._process.prediction or (
            weaker._process.name != self._process.name
        ):
            raise LiditError("the weaker model predicts something else: take one of the same run")
        if any(request.negative_prompt or request.blend for request in requests):
            raise LiditError("autoguidance has no negative prompt and no blend: leave them out")


def _rows(conditions: TextConditions, rows: list[int]) -> TextConditions:
    return jax.tree.map(lambda leaf: leaf[np.asarray(rows)], conditions)


def _column(requests: Sequence[ImageRequest], field: str) -> Float[np.ndarray, "B"]:
    return np.asarray([getattr(request, field) for request in requests], np.float32)
