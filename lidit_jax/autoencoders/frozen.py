"""Pixels to latents and back, with weights: the frozen autoencoder, or none at all."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, UInt8

from lidit_jax.autoencoders import diffusers_layout
from lidit_jax.autoencoders.kl import AutoencoderKL
from lidit_jax.autoencoders.latent_model import LatentModel, boxed_shapes
from lidit_jax.autoencoders.patch import Autoencoder
from lidit_jax.autoencoders.tiling import MINIMUM_TILE, tiled_decode
from lidit_jax.checkpoints.bundle import INDEX, is_bundle, weight_files
from lidit_jax.checkpoints.opener import open_model
from lidit_jax.config.schema import VAEConfig
from lidit_jax.errors import LiditError
from lidit_jax.models.layers import dtype_of
from lidit_jax.parallel.rules import shardings_that_divide
from lidit_jax.weights.hub import is_hub_id

# Images encoded in one call hold so many pixels: an activation of Stable Diffusion's encoder is
# 128 channels wide, 0.5 GB of float32.
_PIXELS_AT_ONCE = 2**20


class FrozenAutoencoder:
    """An autoencoder and its weights; `encode` and `decode` are pure, parameters an argument.

    Attributes:
      params: the frozen weights, {} for pixels.
      channels: latent channels C.
      downsample: image pixels a latent pixel, along each side.
      fingerprint: sha256 of the weights, "pixels" without any.
    """

    def __init__(self, model: LatentModel | None, params: Any, fingerprint: str, tile: int = 0):
        """Joins a network with its weights.

        Args:
          model: None for pixels.
          params: its weights.
          fingerprint: names the weights.
          tile: side of the tiles that larger images are decoded in, in pixels; 0 for none.

        Raises:
          LiditError: when the tile is too small, or no multiple of the downsampling.
        """
        self._model = model
        self.params = params
        self.channels = model.channels if model else 3
        self.downsample = model.downsample if model else 1
        self.fingerprint = fingerprint
        self._tile = tile // self.downsample
        if model and tile and (tile % self.downsample or self._tile < MINIMUM_TILE):
            raise LiditError(
                f"config.vae.tile={tile} must be a multiple of {self.downsample} (downsampling of "
                f"the autoencoder), and at least {MINIMUM_TILE * self.downsample}"
            )
        self._encode = jax.jit(self.encode)

    def on(self, mesh: Mesh) -> FrozenAutoencoder:
        """The autoencoder with its weights on all devices, split where they divide.

        All processes must call it, and then `encode` and `decode`, together.
        """
        placed = copy.copy(self)
        if self._model is not None:
            shardings = shardings_that_divide(boxed_shapes(self._model), mesh)
            placed.params = jax.tree.map(_put, self.params, shardings)
        return placed

    def encode(self, params: Any, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Latents of images in [-1, 1], as the autoencoder gives them."""
        if self._model is None:
            return image
        # Latents to keep are encoded once, so they may as well be exact.
        exact = self._model.clone(dtype=jnp.float32)
        return exact.apply({"params": params}, image, method="encode")

    def decode(self, params: Any, latent: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Images in [-1, 1], clipped."""
        model = self._model
        if model is None:
            return jnp.clip(latent, -1.0, 1.0)

        def plain(latent: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
            return model.apply({"params": params}, latent, method="decode")

        if self._tile and max(latent.shape[1:3]) > self._tile:
            image = tiled_decode(plain, latent, self._tile, self.downsample)
        else:
            image = plain(latent)
        return jnp.clip(image, -1.0, 1.0)

    def encode_images(self, images: UInt8[np.ndarray, "B H W 3"]) -> Float[np.ndarray, "B h w C"]:
        """Latents of uint8 images, worked off in groups so that memory stays bounded."""
        group = max(1, _PIXELS_AT_ONCE // (images.shape[1] * images.shape[2]))
        group = 1 << (group.bit_length() - 1)  # a power of two divides the usual batches
        latents = [
            np.asarray(self._encode(self.params, part.astype(np.float32) / 127.5 - 1.0))
            for part in np.split(images, range(group, len(images), group))
        ]
        return np.concatenate(latents)


def _put(array: Any, sharding: NamedSharding) -> jax.Array:
    """`jax.device_put` without its check, over the network, that all processes have the same."""
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def to_uint8(image: Float[Array, "B H W 3"]) -> UInt8[Array, "B H W 3"]:
    """Images in [-1, 1] as bytes, rounded."""
    return jnp.round((image + 1.0) * 127.5).astype(jnp.uint8)


def build_autoencoder(config: VAEConfig) -> Autoencoder | AutoencoderKL:
    """The network that a configuration describes, to train or to load trained weights into."""
    dtype = dtype_of(config.dtype)
    if config.architecture == "patch":
        return Autoencoder(config, dtype)
    return AutoencoderKL(
        stages=tuple(config.width * multiplier for multiplier in config.multipliers),
        channels=config.channels,
        blocks=config.blocks,
        norm_groups=config.norm_groups,
        attention=config.attention,
        dtype=dtype,
    )


def load_frozen_autoencoder(config: VAEConfig, folder: Path | None = None) -> FrozenAutoencoder:
    """The autoencoder that `config.vae.source` names, computing in `config.vae.dtype`.

    Args:
      config: the configuration's `vae`.
      folder: where to look instead of the source, for models that carry their own autoencoder.

    Raises:
      LiditError: when there is no such thing, it is damaged or holds something else.
    """
    if config.source == "pixels":
        return FrozenAutoencoder(None, {}, "pixels")
    folder = _autoencoder_in(folder, config.source) if folder else locate_autoencoder(config.source)
    if is_bundle(folder):
        saved = open_model(folder)
        if saved.config.training.task != "vae":
            raise LiditError(f"config.vae.source={config.source!r} holds a text-to-image model")
        model = build_autoencoder(saved.config.vae)
        params, fingerprint = saved.load(), saved.fingerprint
    else:
        model, params, fingerprint = diffusers_layout.load(folder)
    model = model.clone(dtype=dtype_of(config.dtype))
    return FrozenAutoencoder(model, params, fingerprint, config.tile)


def locate_autoencoder(source: str) -> Path:
    """The folder of an autoencoder, ours or diffusers', downloaded when need be.

    Args:
      source: a folder or a hub id.

    Raises:
      LiditError: when there is no such thing.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir() and is_hub_id(source):
        return diffusers_layout.download_autoencoder(source)
    return _autoencoder_in(folder, source)


def autoencoder_files(folder: Path) -> list[Path]:
    """The files of a located autoencoder that `load_frozen_autoencoder` needs, no others."""
    if is_bundle(folder):
        index = [folder / INDEX] if (folder / INDEX).is_file() else []
        return [folder / "config.json", *index, *weight_files(folder)]
    return [folder / diffusers_layout.CONFIG, diffusers_layout.weights_file(folder)]


def _autoencoder_in(folder: Path, source: str) -> Path:
    if is_bundle(folder):
        return folder
    if found := diffusers_layout.autoencoder_folder(folder):
        return found
    raise LiditError(
        f"config.vae.source={source!r}: no autoencoder in {folder}; give diffusers' folder or hub "
        "id of one, train one with configs/vae_16ch.py and `lidit export` it, or set 'pixels'"
    )
