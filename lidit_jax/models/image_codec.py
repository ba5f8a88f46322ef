"""Pixels to latents and back, with weights: the frozen autoencoder, or none at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from lidit_jax.config import VAEConfig
from lidit_jax.errors import LiditError
from lidit_jax.models.vae import Autoencoder
from lidit_jax.paths import PACKAGED
from lidit_jax.weights.bundle import is_bundle, load_bundle

DEMO = PACKAGED / "demo" / "vae"


class ImageCodec:
    """An autoencoder and its weights; `encode` and `decode` are pure, parameters an argument.

    Attributes:
      params: the frozen weights, {} for pixels.
      channels: latent channels C.
      downsample: image pixels a latent pixel, along each side.
      fingerprint: sha256 of the weights, "pixels" without any.
    """

    def __init__(self, config: VAEConfig | None, params: Any, fingerprint: str):
        self._model = Autoencoder(config) if config else None
        self.params = params
        self.channels = config.channels if config else 3
        self.downsample = config.downsample if config else 1
        self.fingerprint = fingerprint
        self._encode = jax.jit(self.encode)

    def encode(self, params: Any, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Latents of images in [-1, 1], as the autoencoder gives them."""
        if self._model is None:
            return image
        return self._model.apply({"params": params}, image, method="encode")

    def decode(self, params: Any, latent: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Images in [-1, 1], clipped."""
        if self._model is not None:
            latent = self._model.apply({"params": params}, latent, method="decode")
        return jnp.clip(latent, -1.0, 1.0)

    def encode_images(self, images: UInt8[np.ndarray, "B H W 3"]) -> Float[np.ndarray, "B h w C"]:
        """Latents of uint8 images."""
        return np.asarray(self._encode(self.params, images.astype(np.float32) / 127.5 - 1.0))


def to_uint8(image: Float[Array, "B H W 3"]) -> UInt8[Array, "B H W 3"]:
    """Images in [-1, 1] as bytes, rounded."""
    return jnp.round((image + 1.0) * 127.5).astype(jnp.uint8)


def load_codec(config: VAEConfig, folder: Path | None = None) -> ImageCodec:
    """The codec that `config.vae.source` names: "pixels", "demo" or an exported folder.

    Args:
      config: the configuration's `vae`.
      folder: where to look instead of the source, for models that carry their own autoencoder.

    Raises:
      LiditError: when the folder does not exist, is damaged or holds something else.
    """
    if config.source == "pixels":
        return ImageCodec(None, {}, "pixels")
    folder = folder or (DEMO if config.source == "demo" else Path(config.source))
    if not is_bundle(folder):
        raise LiditError(
            f"config.vae.source={config.source!r}: no exported autoencoder in {folder}; train one "
            "with configs/demo_vae.py and `lidit export` it, or set 'pixels'"
        )
    bundle = load_bundle(folder)
    if bundle.config.training.task != "vae":
        raise LiditError(f"config.vae.source={config.source!r} holds a text-to-image model")
    return ImageCodec(bundle.config.vae, bundle.params, bundle.fingerprint)
