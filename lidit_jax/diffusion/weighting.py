"""Which times count how much in the loss, as a factor on the error where the network predicts.

At fixed x_t an error in one space is a multiple of the error in another, so a loss measured in
another space is a weight too.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lidit_jax.diffusion.parameterization import Scale

PerSample = Float[Array, "B"]

# The least value by which a loss in another space divides: an error in x0 counts at most 1/0.05 =
# 20 times in velocity, however small t. As in JiT, https://arxiv.org/abs/2511.13720.
LOSS_DIVISOR_FLOOR = 0.05

# An error in x0 of 1 is, at fixed x_t, an error in the space of signal**p * sigma**q (sign aside).
_ERROR_POWERS = {"x0": (0, 0), "epsilon": (1, -1), "v": (0, -1), "velocity": (0, -1)}


def space_weight(predicted: str, measured: str, signal: Scale, sigma: Scale) -> PerSample | float:
    """Factor on the squared error of the space `predicted` to measure it in `measured`.

    Divisors are kept at `LOSS_DIVISOR_FLOOR` or more.
    """
    factor = 1.0
    powers = np.subtract(_ERROR_POWERS[measured], _ERROR_POWERS[predicted]).tolist()
    for scale, power in zip((signal, sigma), powers, strict=True):
        factor = factor * jnp.maximum(scale, LOSS_DIVISOR_FLOOR if power < 0 else 0) ** power
    return jnp.square(factor)


def min_snr(predicted: str, gamma: float, signal: Scale, sigma: Scale) -> PerSample:
    """Factor on the squared error that counts an error in x0 `min(SNR, gamma)` times.

    Min-SNR-gamma (https://arxiv.org/abs/2303.09556, eq. 5 and its forms for the other spaces).
    """
    snr = jnp.square(signal / sigma)
    match predicted:
        case "epsilon":
            return jnp.minimum(1.0, gamma / snr)
        case "v":
            return jnp.minimum(snr, gamma) / (snr + 1)
        case "velocity":
            return jnp.minimum(snr, gamma) * jnp.square(sigma)
        case _:
            return jnp.minimum(snr, gamma)


def sigma_sqrt(t: PerSample) -> PerSample:
    """`1 / t**2` of flow, with a floor (https://arxiv.org/abs/2403.03206, section 3.1, "EDM")."""
    return 1 / jnp.square(jnp.maximum(t, LOSS_DIVISOR_FLOOR))


def cosmap(t: PerSample) -> PerSample:
    """`2 / (pi (1 - 2t + 2t^2))` of flow (https://arxiv.org/abs/2403.03206, eq. 21)."""
    return 2 / (jnp.pi * (1 - 2 * t + 2 * jnp.square(t)))
