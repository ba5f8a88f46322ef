"""Prompts in, images out: a trained model with its encoders and its autoencoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from lidit_jax.config import Config
from lidit_jax.diffusion import process as processes
from lidit_jax.encoders.conditions import PromptEncoders
from lidit_jax.errors import LiditError
from lidit_jax.generation import Generator
from lidit_jax.models.image_codec import ImageCodec, load_codec
from lidit_jax.models.lidit import LIDiT
from lidit_jax.paths import PACKAGED
from lidit_jax.recipes import config_from_json
from lidit_jax.training.checkpoint import Checkpoints
from lidit_jax.weights.bundle import is_bundle, load_bundle

_BATCH = 16


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
        self._params = jax.tree.map(jax.numpy.asarray, params)
        self._encoders = PromptEncoders(config.encoders)
        self._encoders.check(metadata["encoders"])
        self._null, crop = self._encoders.encode([""])
        self._generator = Generator(
            LIDiT(config.model),
            processes.from_config(config.diffusion),
            codec,
            metadata["latents"]["mean"],
            metadata["latents"]["deviation"],
            crop,
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
        folder = PACKAGED / "demo" if str(checkpoint) == "demo" else Path(checkpoint)
        if is_bundle(folder):
            if raw:
                raise LiditError(f"{folder} holds averaged weights only: leave out --raw")
            bundle = load_bundle(folder)
            params, config, metadata = bundle.params, bundle.config, bundle.metadata
            own_codec = folder / "vae"
        else:
            params, config, metadata = load_workdir(folder, raw=raw)
            own_codec = None
        if config.training.task != "lidit":
            raise LiditError(f"{folder} holds an autoencoder: name a text-to-image checkpoint")
        codec = load_codec(config.vae, own_codec)
        return cls(params, config, metadata, codec)

    def __call__(
        self,
        prompts: Sequence[str],
        *,
        size: int | tuple[int, int] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        sampler: str | None = None,
    ) -> UInt8[np.ndarray, "B H W 3"]:
        """Draws one image a prompt.

        Args:
          prompts: what to see; none may be empty.
          size: side, or (height, width), in pixels; None for the size of training.
          steps: denoising steps; None, here and below, for the checkpoint's own setting.
          guidance: classifier-free guidance scale; 1 switches it off.
          seed: image i is drawn from seed + i, whatever the batch.
          sampler: name of a sampler that fits the process.

        Raises:
          LiditError: without prompts, for an empty or too long one, or a setting that does not fit.
        """
        if not prompts:
            raise LiditError("no prompt: say what you want to see")
        for prompt in prompts:
            if not prompt.strip():
                raise LiditError("a prompt is empty: say what you want to see")
        defaults = self.config.sampling
        size = self.config.data.image_size if size is None else size
        settings = {
            "size": (size, size) if isinstance(size, int) else size,
            "steps": defaults.steps if steps is None else steps,
            "guidance": defaults.guidance if guidance is None else guidance,
            "sampler": defaults.sampler if sampler is None else sampler,
        }
        batches = []
        for first in range(0, len(prompts), _BATCH):
            batch = list(prompts[first : first + _BATCH])
            # A last, shorter batch is filled up, so that it does not compile a second program.
            filled = batch if len(prompts) <= _BATCH else batch + ["x"] * (_BATCH - len(batch))
            conditions, _ = self._encoders.encode(filled)
            seeds = [(seed + first + i) % 2**32 for i in range(len(filled))]
            images = self._generator(self._params, conditions, self._null, seeds=seeds, **settings)
            batches.append(images[: len(batch)])
        return np.concatenate(batches)


def load_workdir(workdir: Path, *, raw: bool = False) -> tuple[Any, Config, dict[str, Any]]:
    """Weights, configuration and metadata of a checkpoint that training left.

    Args:
      workdir: its newest checkpoint is loaded; or one of its `checkpoints/STEP`.
      raw: the raw weights instead of their moving average.

    Raises:
      LiditError: when there is none, or it is damaged.
    """
    step = None
    if workdir.parent.name == "checkpoints" and workdir.name.isdecimal():
        workdir, step = workdir.parent.parent, int(workdir.name)
    if not (workdir / "checkpoints").is_dir():
        raise LiditError(
            f"no checkpoint in {workdir}: name a workdir of `lidit train`, an exported folder, or "
            "'demo'"
        )
    with Checkpoints(workdir, read_only=True) as checkpoints:
        steps = checkpoints.steps()
        if not steps:
            raise LiditError(f"{workdir} has no complete checkpoint yet: let `lidit train` go on")
        step = steps[-1] if step is None else step
        if step not in steps:
            raise LiditError(f"{workdir} has no checkpoint of step {step}: it has {steps}")
        metadata = checkpoints.metadata(step)
        params = checkpoints.restore_weights(step, "params" if raw else "ema_params")
    config = config_from_json(json.dumps(metadata.pop("config")))
    return params, config, metadata | {"step": step}
