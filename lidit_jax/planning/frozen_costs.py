"""Cost of frozen models during training, when their outputs are cached or computed online.

Online, every sample of every step is encoded anew; cached, every image and caption once, and the
outputs are kept for the whole run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lidit_jax.config.schema import Config
from lidit_jax.planning.plan import Plan
from lidit_jax.planning.roofline import CONSTANTS

_DAYS = 30.0
"""Days per month, of the price of storage."""
_STAGES = (128, 256, 512, 512)
"""Channels of each stage of the public autoencoders of SD, SDXL, SD3 and FLUX."""
_FLOAT16 = 2
_BLOCKS = 2
"""Residual blocks per stage of their encoder."""


@dataclass(frozen=True)
class FrozenCost:
    """Cost of one kind of frozen outputs, over a whole run."""

    online_chip_hours: float
    """Chip-hours to compute them for every sample of every step."""
    cached_chip_hours: float
    """Chip-hours to compute them once per image."""
    bytes_per_sample: float
    cached_bytes: float
    """Bytes of all images in the cache."""
    read_per_second: float
    """Bytes that all hosts together read from the cache per second of training."""
    months: float
    """Duration of the run."""

    @property
    def break_even(self) -> float:
        """Chip-hours per terabyte and month of storage below which the cache is cheaper.

        Infinite if it takes no space, 0 if it saves nothing.
        """
        saved = max(self.online_chip_hours - self.cached_chip_hours, 0.0)
        stored = self.cached_bytes / 1e12 * self.months
        return saved / stored if stored else math.inf


def text_cost(plan: Plan, images: int) -> FrozenCost:
    """Return the cost of the text features of all captions.

    Args:
      plan: of the run.
      images: number of training images, with one caption each.
    """
    return _cost(plan, images, plan.text.encoding_flops, plan.text.bytes_a_caption)


def latent_cost(config: Config, plan: Plan, images: int) -> FrozenCost:
    """Return the cost of the autoencoder's latents of all images.

    The autoencoder is assumed to be of the public ones' size, 34 M parameters in the encoder.

    Args:
      config: of the run.
      plan: of the run.
      images: number of training images.
    """
    rows, columns, channels = config.latent_shape
    flops = 0.0
    if config.vae.source != "pixels":
        flops = kl_encoder_flops(config.data.image_size, _STAGES, _BLOCKS, channels)
    return _cost(plan, images, flops, _FLOAT16 * rows * columns * channels)


def kl_encoder_flops(side: int, stages: Sequence[int], blocks: int, channels: int) -> float:
    """Return the operations of Stable Diffusion's encoder (`autoencoders.kl`) for a square image.

    Args:
      side: of the image, in pixels.
      stages: channels of each stage; all but the last halve the image.
      blocks: residual blocks per stage.
      channels: latent channels.
    """

    def conv(pixels: int, inputs: int, outputs: int, kernel: int = 3) -> float:
        return 2.0 * kernel**2 * inputs * outputs * pixels**2

    def block(pixels: int, inputs: int, outputs: int) -> float:
        shortcut = conv(pixels, inputs, outputs, 1) if inputs != outputs else 0.0
        return conv(pixels, inputs, outputs) + conv(pixels, outputs, outputs) + shortcut

    total, width = conv(side, 3, stages[0]), stages[0]
    for number, wide in enumerate(stages):
        for _ in range(blocks):
            total += block(side, width, wide)
            width = wide
        if number < len(stages) - 1:
            side //= 2
            total += conv(side, width, width)
    attention = 4 * conv(side, width, width, 1) + 4.0 * side**4 * width
    return total + 2 * block(side, width, width) + attention + conv(side, width, 2 * channels)


def _cost(plan: Plan, images: int, flops: float, size: float) -> FrozenCost:
    chip = plan.topology.generation
    devices = plan.topology.devices / plan.topology.chips
    rate = chip.flops * chip.sustained * CONSTANTS.matmul * devices
    hours = flops / rate / 3600
    days = plan.seconds * plan.steps / 86_400
    return FrozenCost(
        online_chip_hours=plan.batch * plan.steps * hours,
        cached_chip_hours=images * hours,
        bytes_per_sample=size,
        cached_bytes=images * size,
        read_per_second=plan.batch * size / plan.seconds,
        months=days / _DAYS,
    )
