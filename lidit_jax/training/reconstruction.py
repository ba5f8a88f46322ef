"""Reconstruction losses of the autoencoder, without a learned perceptual network."""

import jax.numpy as jnp
from jaxtyping import Array, Float

_SCALES = 3
GRADIENT_STEP = 4
"""Divisor of the sides of images in `gradient_distance`."""


def distance(
    reconstruction: Float[Array, "B H W 3"], image: Float[Array, "B H W 3"], kind: str
) -> Float[Array, " B"]:
    """Return the mean absolute ("l1") or squared ("l2") error over an image's values."""
    error = reconstruction - image
    return jnp.mean(jnp.abs(error) if kind == "l1" else jnp.square(error), axis=(1, 2, 3))


def gradient_distance(
    reconstruction: Float[Array, "B H W 3"], image: Float[Array, "B H W 3"]
) -> Float[Array, " B"]:
    """Return the mean absolute error of image gradients, averaged over full, half and quarter size.

    It penalizes blurred edges more than L1 does.

    Args:
      reconstruction: sides at least 8 pixels, multiples of 4.
      image: of the same shape.
    """
    error = reconstruction - image  # gradients are linear: that of the error is enough
    total = jnp.zeros(len(error))
    for scale in range(_SCALES):
        if scale:
            error = (error[:, ::2] + error[:, 1::2]) / 2
            error = (error[:, :, ::2] + error[:, :, 1::2]) / 2
        for axis in (1, 2):
            total += jnp.mean(jnp.abs(jnp.diff(error, axis=axis)), axis=(1, 2, 3)) / 2
    return total / _SCALES
