"""Frozen autoencoders: networks with their weights, or plain pixels without a network."""

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

# Most pixels encoded in one call: at this size an activation of Stable Diffusion's encoder, 128
# channels wide, takes 0.5 GB in float32.
_PIXELS_AT_ONCE = 2**20


class FrozenAutoencoder:
    """Autoencoder with its weights; `encode` and `decode` are pure functions of the parameters.

    Attributes:
      params: the frozen weights, {} for pixels.
      channels: latent channels C.
      downsample: image pixels per latent pixel, along each side.
      fingerprint: sha256 of the weights, "pixels" without any.
    """

    def __init__(self, model: LatentModel | None, params: Any, fingerprint: str, tile: int = 0):
        """Combine a network with its weights.

        Args:
          model: None for pixels.
          params: its weights.
          fingerprint: sha256 of the weights, or "pixels".
          tile: side in pixels of the tiles in which larger images are decoded; 0 for no tiling.

        Raises:
          LiditError: when the tile is too small, or not a multiple of the downsampling.
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
        """Return the autoencoder with its weights on all devices, sharded where they divide evenly.

        All processes must call it, and then `encode` and `decode`, together.
        """
        placed = copy.copy(self)
        if self._model is not None:
            shardings = shardings_that_divide(boxed_shapes(self._model), mesh)
            placed.params = jax.tree.map(_put, self.params, shardings)
        return placed

    def encode(self, params: Any, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Encode images in [-1, 1] into latents that are not yet normalized."""
        if self._model is None:
            return image
        # Latents are encoded once and stored, so full precision costs little.
        exact = self._model.clone(dtype=jnp.float32)
        return exact.apply({"params": params}, image, method="encode")

    def decode(self, params: Any, latent: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Decode latents into images, clipped to [-1, 1]."""
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
        """Encode uint8 images in groups, so that memory stays bounded."""
        group = max(1, _PIXELS_AT_ONCE // (images.shape[1] * images.shape[2]))
        group = 1 << (group.bit_length() - 1)  # a power of two divides the usual batches
        latents = [
            np.asarray(self._encode(self.params, part.astype(np.float32) / 127.5 - 1.0))
            for part in np.split(images, range(group, len(images), group))
        ]
        return np.concatenate(latents)


def _put(array: Any, sharding: NamedSharding) -> jax.Array:
    """Call `jax.device_put` without its network check that all processes hold equal values."""
    host = np.asarray(array)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def to_uint8(image: Float[Array, "*B H W 3"]) -> UInt8[Array, "*B H W 3"]:
    """Convert images in [-1, 1] to uint8, rounded."""
    return jnp.round((image + 1.0) * 127.5).astype(jnp.uint8)


def build_autoencoder(config: VAEConfig) -> Autoencoder | AutoencoderKL:
    """Build the network of a configuration, to train it or to load trained weights into it."""
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
    """Load the autoencoder that `config.vae.source` names, computing in `config.vae.dtype`.

    Args:
      config: the configuration's `vae`.
      folder: read instead of the source, for models that include their own autoencoder.

    Raises:
      LiditError: when there is no autoencoder, or it is damaged or another kind of model.
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
    """Return the folder of an autoencoder, in either layout, downloading it if necessary.

    Args:
      source: a folder or a hub id.

    Raises:
      LiditError: when there is no such autoencoder.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir() and is_hub_id(source):
        return diffusers_layout.download_autoencoder(source)
    return _autoencoder_in(folder, source)


def autoencoder_files(folder: Path) -> list[Path]:
    """List the files of a located autoencoder that `load_frozen_autoencoder` reads."""
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
