"""Time-dependent loss weights, as factors on the error in the network's prediction space.

At fixed x_t an error in one space is a multiple of the error in another, so measuring the loss in
another space is a weighting too.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lidit_jax.diffusion.parameterization import Scale

PerSample = Float[Array, "B"]

# Lower bound of divisors when the loss is measured in another space: an error in x0 is scaled by at
# most 1/0.05 = 20 in velocity, for any t. As in JiT, https://arxiv.org/abs/2511.13720.
LOSS_DIVISOR_FLOOR = 0.05

# An error in x0 of 1 is, at fixed x_t, an error in the space of signal**p * sigma**q (sign aside).
_ERROR_POWERS = {"x0": (0, 0), "epsilon": (1, -1), "v": (0, -1), "velocity": (0, -1)}


def space_weight(predicted: str, measured: str, signal: Scale, sigma: Scale) -> PerSample | float:
    """Return the factor that converts the squared error from space `predicted` to `measured`.

    Divisors are at least `LOSS_DIVISOR_FLOOR`.
    """
    factor = 1.0
    powers = np.subtract(_ERROR_POWERS[measured], _ERROR_POWERS[predicted]).tolist()
    for scale, power in zip((signal, sigma), powers, strict=True):
        factor = factor * jnp.maximum(scale, LOSS_DIVISOR_FLOOR if power < 0 else 0) ** power
    return jnp.square(factor)


def min_snr(predicted: str, gamma: float, signal: Scale, sigma: Scale) -> PerSample:
    """Return the factor that weights the squared error in x0 by `min(SNR, gamma)`.

    This is Min-SNR-gamma (https://arxiv.org/abs/2303.09556, eq. 5 and its forms for other spaces).
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
    """Return `1 / t**2` for flow, with a floor (arXiv 2403.03206, section 3.1, "EDM")."""
    return 1 / jnp.square(jnp.maximum(t, LOSS_DIVISOR_FLOOR))


def cosmap(t: PerSample) -> PerSample:
    """Return `2 / (pi (1 - 2t + 2t^2))` for flow (https://arxiv.org/abs/2403.03206, eq. 21)."""
    return 2 / (jnp.pi * (1 - 2 * t + 2 * jnp.square(t)))
