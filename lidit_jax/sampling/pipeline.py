"""Text-to-image pipeline: a trained model with its text encoders and autoencoder."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, UInt8

from lidit_jax.checkpoints.opener import open_model
from lidit_jax.config.schema import MeshConfig, SamplingConfig
from lidit_jax.diffusion.process import Process
from lidit_jax.encoders.conditions import PromptEncoders, TextConditions
from lidit_jax.encoders.tokenizer import PromptTooLongError
from lidit_jax.errors import LiditError
from lidit_jax.io.progress import Progress, SubtaskProgress
from lidit_jax.models.abstract_inputs import abstract_parameters
from lidit_jax.models.flops import TextStream
from lidit_jax.models.lidit import LIDiT
from lidit_jax.parallel.mesh import BATCH_AXES, check_model_divides, make_mesh
from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES, state_shardings
from lidit_jax.sampling.guided_sampler import GuidedSampler
from lidit_jax.sampling.image_batch import Blend, GuideModel, ImageBatch, Variation
from lidit_jax.sampling.init_image import InitImage, init_image
from lidit_jax.sampling.memory import check_memory, explain_out_of_memory
from lidit_jax.sampling.opened_model import OpenedModel
from lidit_jax.sampling.request import ImageRequest, image_requests
from lidit_jax.sampling.sizes import check_size, height_and_width
from lidit_jax.weights.parameter_paths import fingerprint

_BATCH = 16


class Pipeline:
    """Text-to-image pipeline: `Pipeline.from_checkpoint("demo")(["a red circle"])`.

    A call returns uint8 images [B, H, W, 3].
    """

    def __init__(
        self,
        opened: OpenedModel,
        params: Any,
        mesh: Mesh | None = None,
        encoders: Mapping[str, str] | None = None,
    ):
        """Combine weights with the encoders and autoencoder that they were trained with.

        Args:
          opened: the checkpoint that they are from.
          params: weights of its network, already sharded.
          mesh: the devices that share the weights and the images; None for the first one.
          encoders: current paths of encoders that moved since training.

        Raises:
          LiditError: when an encoder or the autoencoder is not the one of the checkpoint.
        """
        autoencoder, provenance = opened.autoencoder, opened.provenance
        self.config = opened.config
        self._opened = opened
        self._model = LIDiT(opened.config.model)
        self._params = jax.tree.map(jax.numpy.asarray, params)
        self._mesh = mesh
        self._encoders = PromptEncoders.from_checkpoint(
            opened.config.encoders, provenance.encoders, mesh, encoders
        )
        self._unconditional, prefix_lengths = self._encoders.encode([""])
        self._sampler = GuidedSampler(
            self._model,
            opened.process,
            autoencoder.on(mesh) if mesh else autoencoder,
            provenance.latent_mean,
            provenance.latent_std,
            prefix_lengths,
            opened.config.data.image_size if opened.config.diffusion.resolution_shift else 0,
        )

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path | OpenedModel,
        *,
        raw: bool = False,
        mesh: MeshConfig | None = None,
        encoders: Mapping[str, str] | None = None,
    ) -> Pipeline:
        """Load "demo", an exported folder, a workdir's newest checkpoint or one of the others.

        Args:
          checkpoint: name or path, or an `OpenedModel`.
          raw: load the raw weights of a workdir instead of the EMA weights; ignored for an
            `OpenedModel`.
          mesh: splits network and encoders over all devices of this process, straight from their
            files, and the autoencoder, such as `MeshConfig(tensor=4)`; None uses the first alone.
          encoders: current paths of encoders that moved, by their `encoders.sources` or the
            last part of it; without it they are looked for there, and by content in the folders
            of the environment variable LIDIT_ENCODERS.

        Raises:
          LiditError: when there is no such checkpoint, it is damaged, its encoders are missing, or
            the mesh does not divide it.
        """
        if isinstance(checkpoint, OpenedModel):
            opened = checkpoint
        else:
            opened = OpenedModel(open_model(checkpoint, raw=raw))
        devices = mesh and make_mesh(mesh, jax.local_devices())
        shardings = devices and _shardings(opened, devices)
        return cls(opened, opened.saved.load(shardings), devices, encoders)

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of the network's weights, which identifies them in image metadata."""
        return fingerprint(self._params)

    @property
    def process(self) -> Process:
        """Diffusion process of the model's training."""
        return self._opened.process

    @property
    def samplers(self) -> tuple[str, ...]:
        """Names of the samplers that support the diffusion process."""
        return self._opened.samplers

    def settings(self, **changes: Any) -> SamplingConfig:
        """Return the checkpoint's sampling settings with changes (None: no change), validated.

        Raises:
          LiditError: for an unknown setting, or a value that does not fit the checkpoint.
        """
        return self._opened.settings(**changes)

    def encode(self, prompts: Sequence[str]) -> TextConditions:
        """Encode prompts for the network. Raises `LiditError` when one is too long."""
        with _limit_of_checkpoint():
            return self._encoders.encode(prompts)[0]

    def check_lengths(self, prompts: Sequence[str]) -> None:
        """Raise `LiditError` when a prompt is too long for the network's text encoders."""
        with _limit_of_checkpoint():
            self._encoders.check_lengths(prompts)

    def __call__(
        self,
        prompts: str | Iterable[str],
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
        mask: Bool[np.ndarray, "H W"] | Bool[np.ndarray, "B H W"] | None = None,
        strength: float | None = None,
        guide: Pipeline | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> UInt8[np.ndarray, "B H W 3"]:
        """Generate one image per prompt.

        Numbers may be Python's, NumPy's or JAX's, and lists of them anything that has an order.

        Args:
          prompts: texts of the images; a string is one prompt, and none may be empty.
          size: side, or (height, width), in pixels; None for the size of `image` or of training.
          seed: image i is drawn from seed + i, whatever the batch; or one seed per image. Every
            image must be reproducible, so None (a random seed) is refused.
          guidance: guidance scale, or one per image; 1 switches it off; None for the checkpoint's.
          negative_prompt: text to guide away from, or one per image.
          blend_with: a second prompt, or one per image.
          blend: its weight, or one per image: 0 draws the first prompt, 1 the second.
          variation: interpolation from the seed's noise to another, 0 to 1: small values give
            variations of an image.
          variation_seed: seed of the other noise.
          image: an initial image, or one per prompt.
          mask: True where to repaint the image; other pixels are kept.
          strength: how much of an image to redraw, above 0 to 1; None for 0.6, with a mask 1.
          guide: a weaker model of the same kind to guide away from (autoguidance) instead of the
            empty prompt: e.g. an earlier checkpoint of the same run.
          progress: receives the number of finished evaluations, and when a program is
            compiled: see `lidit_jax.io.progress.progress_bar`.
          settings: any field of `config.sampling` (sampler, steps, spacing, guidance_method, ...);
            None, and what is left out, is the checkpoint's.

        Raises:
          LiditError: without prompts, for an empty or too long one, a setting that does not fit,
            or images that do not fit into memory.
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
        init = init_image(image, mask, strength, len(requests))
        if size is None:
            size = self.config.data.image_size if init is None else init.images.shape[1:3]
        size = height_and_width(size)
        if init is not None and init.images.shape[1:3] != size:
            height, width = init.images.shape[1:3]
            raise LiditError(
                f"image is {height}x{width} and size {size[0]}x{size[1]}: resize the image"
            )
        check_size(size, self._opened.size_step)
        check_memory(len(requests), size)
        if guide is not None:
            if not isinstance(guide, Pipeline):
                raise LiditError(f"guide={guide!r}: must be a Pipeline of an earlier checkpoint")
            self._opened.check_guide(guide._opened)
            if any(request.negative_prompt or request.blend for request in requests):
                raise LiditError("autoguidance has no negative prompt and no blend: leave them out")
        texts = {t for r in requests for t in (r.prompt, r.negative_prompt, r.blend_with)}
        self.check_lengths(sorted(texts))  # of all prompts before the first is drawn
        return self.draw(requests, checked, size, init=init, guide=guide, progress=progress)

    def draw(
        self,
        requests: Sequence[ImageRequest],
        settings: SamplingConfig,
        size: tuple[int, int],
        *,
        init: InitImage | None = None,
        guide: Pipeline | None = None,
        conditions: TextConditions | None = None,
        progress: Progress | None = None,
    ) -> UInt8[np.ndarray, "B H W 3"]:
        """Generate the images of validated requests, in batches.

        Args:
          requests: one per image.
          settings: result of `settings`.
          size: (height, width) in pixels.
          init: initial images, one per request.
          guide: as for `__call__`.
          conditions: result of `encode`, to reuse for the same prompts; None encodes them.
          progress: as for `__call__`.
        """
        images = np.empty((len(requests), *size, 3), np.uint8)
        batches = _batches(len(requests), self._shares)
        for i, rows in enumerate(batches):
            part = [requests[row] for row in rows]
            negatives = [request.negative_prompt for request in part]
            batch = ImageBatch(
                conditions=(
                    self.encode([request.prompt for request in part])
                    if conditions is None
                    else jax.tree.map(lambda leaf, rows=rows: leaf[np.asarray(rows)], conditions)
                ),
                unconditional=self.encode(negatives) if any(negatives) else self._unconditional,
                seeds=[request.seed for request in part],
                size=size,
                settings=settings,
                guidance=_column(part, "guidance"),
                blend=self._blend(part),
                variation=_variation(part),
                init=init and init.rows(rows),
                guide=guide and GuideModel(guide._model, guide._params),
            )
            shown = progress and SubtaskProgress(progress, i, len(batches))
            new = slice(rows[0], rows[-1] + 1)  # without the rows that only pad the batch
            with explain_out_of_memory(size), self._on_mesh():
                drawn = self._sampler(self._params, batch, shown)
            images[new] = drawn[: new.stop - new.start]
        return images

    def _blend(self, requests: Sequence[ImageRequest]) -> Blend | None:
        if not any(request.blend for request in requests):
            return None
        # An image without a second prompt blends with its own, at weight 0.
        seconds = [request.blend_with or request.prompt for request in requests]
        return Blend(self.encode(seconds), _column(requests, "blend"))

    @property
    def _shares(self) -> int:
        """Number of shards of a batch over the devices."""
        return math.prod(self._mesh.shape[axis] for axis in BATCH_AXES) if self._mesh else 1

    @contextmanager
    def _on_mesh(self) -> Iterator[None]:
        if self._mesh is None:
            yield
        else:
            with jax.set_mesh(self._mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
                yield


def _shardings(opened: OpenedModel, mesh: Mesh) -> Any:
    """Return the shardings of a saved model's parameters."""
    check_model_divides(opened.config, mesh)
    # Whatever the widths of features and latents, the axes are split alike.
    streams = [
        TextStream(width=1, tokens=1, prefix_length=0, layers=layers)
        for layers in opened.provenance.layer_counts
    ]
    shapes = abstract_parameters(LIDiT(opened.config.model), streams, channels=1)
    return state_shardings(shapes, mesh)


def _batches(total: int, shares: int) -> list[list[int]]:
    """Split rows into batches of a few fixed sizes that are multiples of `shares`.

    The last image is repeated to pad a batch: each other number of rows would be another program,
    which takes longer to compile than a few more images take to draw.
    """
    largest = rows = -(-_BATCH // shares) * shares
    if total < largest:
        rows = shares
        while rows < total:
            rows = min(2 * rows, largest)
    starts = range(0, total, rows)
    return [[min(row, total - 1) for row in range(first, first + rows)] for first in starts]


def _variation(requests: Sequence[ImageRequest]) -> Variation | None:
    if not any(request.variation for request in requests):
        return None
    seeds = [request.variation_seed for request in requests]
    return Variation(seeds, _column(requests, "variation"))


def _column(requests: Sequence[ImageRequest], field: str) -> Float[np.ndarray, " B"]:
    return np.asarray([getattr(request, field) for request in requests], np.float32)


@contextmanager
def _limit_of_checkpoint() -> Iterator[None]:
    """Rephrase the error about a too long prompt with the remedy for sampling."""
    try:
        yield
    except PromptTooLongError as error:
        raise LiditError(
            f"the prompt {error.shown!r} has {error.tokens} tokens, the limit is {error.limit} in "
            "this checkpoint: shorten it"
        ) from error
