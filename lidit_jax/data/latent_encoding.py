"""Encoding of images to latents by the devices of this process, as cached and as in training."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from lidit_jax.autoencoders.frozen import FrozenAutoencoder
from lidit_jax.config.schema import MeshConfig
from lidit_jax.parallel.mesh import batch_sharding, make_mesh

_PIXELS = 2**20
"""Pixels per device and call: an activation of Stable Diffusion's encoder, 128 channels wide, takes
0.5 GB in float32."""
_MOST_ROWS = 64


class LatentEncoder:
    """Encoder of images to float16 latents, one program per shape.

    The images of a call are divided among all devices of this process.
    """

    def __init__(self, autoencoder: FrozenAutoencoder):
        """Place the weights.

        Args:
          autoencoder: the frozen autoencoder.
        """
        devices = jax.local_devices()
        mesh = make_mesh(MeshConfig(data=len(devices), fsdp=1), devices)
        self._devices, self._rows = len(devices), batch_sharding(mesh)
        self._autoencoder = autoencoder.on(mesh)
        self._compiled = jax.jit(self._encode)

    def batch_size(self, shape: tuple[int, int]) -> int:
        """Return the number of images to encode in one call.

        Args:
          shape: height and width of the images, in pixels.
        """
        each = min(max(_PIXELS // math.prod(shape), 1), _MOST_ROWS)
        return self._devices << (each.bit_length() - 1)

    def latent_shape(self, shape: tuple[int, int]) -> tuple[int, int, int]:
        """Return the shape of the latent of an image.

        Args:
          shape: height and width of the image, in pixels.
        """
        image = jax.ShapeDtypeStruct((1, *shape, 3), jnp.uint8)
        _, *latent = jax.eval_shape(self._encode, self._autoencoder.params, image).shape
        rows, columns, channels = latent
        return rows, columns, channels

    def __call__(self, images: UInt8[np.ndarray, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Return latents that are not normalized, in float16, without waiting for them.

        Args:
          images: B images, see `batch_size`.
        """
        return self._compiled(self._autoencoder.params, jax.device_put(images, self._rows))

    def _encode(self, params: object, image: UInt8[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        # The same operations as in training, so that the values are the same.
        pixels = image.astype(jnp.float32) / 127.5 - 1.0
        return self._autoencoder.encode(params, pixels).astype(jnp.float16)
