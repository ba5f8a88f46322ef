"""Prediction spaces of the network, and conversions between them.

Both processes mix an image with Gaussian noise, `x_t = signal * x0 + sigma * epsilon`. Given x_t
and the two scales, each of these quantities determines every other one:

| space      | quantity                       | process    |
|------------|--------------------------------|------------|
| `epsilon`  | the noise                      | DDPM       |
| `v`        | signal * epsilon - sigma * x0  | DDPM       |
| `velocity` | epsilon - x0, which is dx_t/dt | flow       |
| `x0`       | the image                      | both       |

The scales are numbers or arrays that broadcast against the images.
"""

from __future__ import annotations

from jaxtyping import Array, Float

Images = Float[Array, "B ..."]  # x0, x_t, noise or prediction: B samples of any rank
Scale = Float[Array, "..."] | float


def to_x0(space: str, prediction: Images, x_t: Images, signal: Scale, sigma: Scale) -> Images:
    """Convert a prediction to the image x0.

    The result is not finite for an epsilon-prediction where the signal is 0.
    """
    match space:
        case "epsilon":
            return (x_t - sigma * prediction) / signal
        case "v":
            return signal * x_t - sigma * prediction
        case "velocity":
            return x_t - sigma * prediction
        case _:
            return prediction


def to_epsilon(space: str, prediction: Images, x_t: Images, signal: Scale, sigma: Scale) -> Images:
    """Convert a prediction to the noise epsilon.

    The result is not finite for an x0-prediction where the noise scale is 0.
    """
    match space:
        case "epsilon":
            return prediction
        case "v":
            return sigma * x_t + signal * prediction
        case "velocity":
            return x_t + signal * prediction
        case _:
            return (x_t - signal * prediction) / sigma


def from_x0_epsilon(space: str, x0: Images, epsilon: Images, signal: Scale, sigma: Scale) -> Images:
    """Return the prediction target in `space` for a given image and noise."""
    match space:
        case "epsilon":
            return epsilon
        case "v":
            return signal * epsilon - sigma * x0
        case "velocity":
            return epsilon - x0
        case _:
            return x0


def convert(
    source: str, target: str, prediction: Images, x_t: Images, signal: Scale, sigma: Scale
) -> Images:
    """Convert a prediction from one space to another."""
    if source == target:
        return prediction
    scales = (signal, sigma)
    x0 = to_x0(source, prediction, x_t, *scales)
    epsilon = to_epsilon(source, prediction, x_t, *scales)
    return from_x0_epsilon(target, x0, epsilon, *scales)
