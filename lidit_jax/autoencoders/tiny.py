"""AutoencoderTiny: TAESD and similar small distilled autoencoders (github.com/madebyollin/taesd).

They use the latents of SD, SDXL, SD3 or FLUX at a hundredth of the cost. Layers and parameters'
names are those of diffusers' class: `decoder/layers_3/conv_0/kernel` is its
`decoder.layers.3.conv.0.weight`; activations and upsampling layers, without parameters, count too.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from lidit_jax.models.convolution import Convolution


class TinyAutoencoder(nn.Module):
    """Autoencoder of images and latents [B, h, w, C] without KL; all stages but one halve sides."""

    channels: int = 4
    """Latent channels C: 4 for SD and SDXL, 16 for SD3 and FLUX."""
    width: int = 64
    """Channels of all stages."""
    encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    """Residual blocks of each stage, from the image inward."""
    decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    """Residual blocks of each stage, from the latent outward."""
    shift: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    """Latents are `(z - shift) * scale` of the encoder's z: the identity in published models."""
    dtype: DTypeLike = jnp.float32
    """Compute type; parameters and results are float32."""

    @property
    def downsample(self) -> int:
        """Image pixels per latent pixel, along each side."""
        return 2 ** (len(self.encoder_blocks) - 1)

    def setup(self) -> None:
        """Create encoder and decoder."""
        self.encoder = Encoder(self.channels, self.width, self.encoder_blocks, self.dtype)
        self.decoder = Decoder(self.width, self.decoder_blocks, self.dtype)

    def encode(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Return the latent of an image in [-1, 1]; H and W are multiples of `downsample`."""
        z = self.encoder(image).astype(jnp.float32)
        return (z - jnp.asarray(self.shift)) * jnp.asarray(self.scale)

    def decode(self, latent: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Decode a latent into an image in [-1, 1], not clipped."""
        z = latent / jnp.asarray(self.scale) + jnp.asarray(self.shift)
        return self.decoder(z).astype(jnp.float32)

    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
        """Return the reconstruction of an image."""
        return self.decode(self.encode(image))


class Encoder(nn.Module):
    """Encoder from an image to z."""

    channels: int
    width: int
    blocks: tuple[int, ...]
    dtype: DTypeLike

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Return z for an image in [-1, 1]."""
        x, layer = (image + 1.0) / 2.0, 0
        for stage, blocks in enumerate(self.blocks):
            x = _conv(self.width, self.dtype, layer, stride=2 if stage else 1, bias=not stage)(x)
            for i in range(blocks):
                x = Block(self.width, self.dtype, name=f"layers_{layer + 1 + i}")(x)
            layer += 1 + blocks
        return _conv(self.channels, self.dtype, layer)(x)


class Decoder(nn.Module):
    """Decoder from z to an image."""

    width: int
    blocks: tuple[int, ...]
    dtype: DTypeLike

    @nn.compact
    def __call__(self, z: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Return the image in [-1, 1], not clipped."""
        x = nn.relu(_conv(self.width, self.dtype, 0)(jnp.tanh(z / 3.0) * 3.0))
        layer = 2
        for stage, blocks in enumerate(self.blocks):
            last = stage == len(self.blocks) - 1
            for i in range(blocks):
                x = Block(self.width, self.dtype, name=f"layers_{layer + i}")(x)
            layer += blocks
            if not last:
                x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
                layer += 1
            x = _conv(3 if last else self.width, self.dtype, layer, bias=last)(x)
            layer += 1
        return 2.0 * x - 1.0


class Block(nn.Module):
    """Residual block of three 3x3 convolutions."""

    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h w D"]:
        """Return features of the same shape."""
        h = x
        for i in (0, 2, 4):
            h = Convolution(self.width, self.dtype, name=f"conv_{i}")(h)
            if i < 4:
                h = nn.relu(h)
        return nn.relu(x + h)


def _conv(
    features: int, dtype: DTypeLike, layer: int, *, stride: int = 1, bias: bool = True
) -> Convolution:
    # Padded on all sides, as PyTorch does; "SAME" would pad strided ones on one side only.
    padding = ((1, 1), (1, 1))
    name = f"layers_{layer}"
    return Convolution(features, dtype, strides=stride, padding=padding, use_bias=bias, name=name)
