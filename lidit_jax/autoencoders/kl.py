"""AutoencoderKL: the autoencoder of Stable Diffusion, SDXL, SD3 and FLUX (arXiv 2112.10752).

The layers are those of diffusers' class of the same name, and so are the parameters' names:
`encoder/down_blocks_0/resnets_1/norm1/scale` is its `encoder.down_blocks.0.resnets.1.norm1.weight`.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from lidit_jax.autoencoders.posterior import Posterior
from lidit_jax.models.convolution import Convolution
from lidit_jax.models.layers import Dense

_NORM_EPSILON = 1e-6
_NARROWING = ("embed", None)
# Attention over more pixels than this is computed in chunks: at 2048 px the full matrix of
# attention weights would take 17 GB.
_QUERIES_AT_ONCE = 1024


class AutoencoderKL(nn.Module):
    """Autoencoder of images and latents [B, h, w, C]; every stage but the last halves the sides.

    `encode` returns and `decode` takes the latents of diffusion models, `(z - shift) * scale` of
    the encoder's z, as in diffusers' pipelines.
    """

    stages: tuple[int, ...]
    """Channels of each stage, from the image inward: 128, 256, 512, 512 in all these models."""
    channels: int
    """Latent channels C: 4 in SD and SDXL, 16 in SD3 and FLUX."""
    blocks: int = 2
    """Residual blocks per stage of the encoder; the decoder has one more."""
    norm_groups: int = 32
    attention: bool = True
    """Whether to use self-attention at the lowest resolution."""
    quant: bool = False
    """Whether a 1x1 convolution follows the encoder, as in SD and SDXL."""
    post_quant: bool = False
    """Whether a 1x1 convolution precedes the decoder, as in SD and SDXL."""
    shift: tuple[float, ...] = (0.0,)
    """One value for all latent channels, or one per channel."""
    scale: tuple[float, ...] = (1.0,)
    dtype: DTypeLike = jnp.float32
    """Compute type; parameters, norms' statistics and results are float32."""

    @property
    def downsample(self) -> int:
        """Image pixels per latent pixel, along each side."""
        return 2 ** (len(self.stages) - 1)

    def setup(self) -> None:
        """Create the submodules."""
        shared = (self.stages, self.blocks, self.norm_groups, self.attention)
        self.encoder = Encoder(*shared, 2 * self.channels, self.dtype)
        self.decoder = Decoder(*shared, self.dtype)
        if self.quant:
            self.quant_conv = _latent_conv(2 * self.channels, self.dtype)
        if self.post_quant:
            self.post_quant_conv = _latent_conv(self.channels, self.dtype)

    def posterior(self, image: Float[Array, "B H W 3"]) -> Posterior:
        """Return the posterior of z, before shift and scale, for an image in [-1, 1]."""
        moments = self.encoder(image)
        return Posterior.from_moments(self.quant_conv(moments) if self.quant else moments)

    def encode(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """Encode an image in [-1, 1], sides multiples of `downsample`, into the posterior mode."""
        return (self.posterior(image).mean - jnp.asarray(self.shift)) * jnp.asarray(self.scale)

    def decode(self, latent: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Decode a latent into an image in [-1, 1], not clipped."""
        return self.decode_unscaled(latent / jnp.asarray(self.scale) + jnp.asarray(self.shift))

    def decode_unscaled(self, z: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Decode z, before shift and scale, into an image in [-1, 1], not clipped."""
        return self.decoder(self.post_quant_conv(z) if self.post_quant else z).astype(jnp.float32)

    def __call__(
        self, image: Float[Array, "B H W 3"], keys: Key[Array, " B"]
    ) -> tuple[Float[Array, "B H W 3"], Float[Array, " B"]]:
        """Return the reconstruction from a sampled z, and the KL to N(0, I) per latent value."""
        posterior = self.posterior(image)
        return self.decode_unscaled(posterior.sample(keys)), posterior.kl()


class Encoder(nn.Module):
    """Encoder from an image to the mean and log-variance of z."""

    stages: tuple[int, ...]
    blocks: int
    norm_groups: int
    attention: bool
    moments: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w moments"]:
        """Return the mean and log-variance of z for an image in [-1, 1]."""
        x = Convolution(self.stages[0], self.dtype, name="conv_in")(image)
        for i, width in enumerate(self.stages):
            last = i == len(self.stages) - 1
            x = DownBlock(
                width, self.blocks, self.norm_groups, not last, self.dtype, name=f"down_blocks_{i}"
            )(x)
        x = MidBlock(self.norm_groups, self.attention, self.dtype, name="mid_block")(x)
        x = nn.silu(_norm(self.norm_groups, self.dtype, name="conv_norm_out")(x))
        return Convolution(self.moments, self.dtype, _NARROWING, name="conv_out")(x)


class Decoder(nn.Module):
    """Decoder from z to an image."""

    stages: tuple[int, ...]
    blocks: int
    norm_groups: int
    attention: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, z: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Return the image in [-1, 1], not clipped."""
        x = Convolution(self.stages[-1], self.dtype, name="conv_in")(z)
        x = MidBlock(self.norm_groups, self.attention, self.dtype, name="mid_block")(x)
        for i, width in enumerate(reversed(self.stages)):
            last = i == len(self.stages) - 1
            x = UpBlock(
                width,
                self.blocks + 1,
                self.norm_groups,
                not last,
                self.dtype,
                name=f"up_blocks_{i}",
            )(x)
        x = nn.silu(_norm(self.norm_groups, self.dtype, name="conv_norm_out")(x))
        return Convolution(3, self.dtype, _NARROWING, name="conv_out")(x)


class DownBlock(nn.Module):
    """Residual blocks followed by downsampling by 2."""

    width: int
    blocks: int
    norm_groups: int
    halve: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w I"]) -> Float[Array, "B h2 w2 O"]:
        """Return features of half the sides (h2 = h / 2), or of equal sides in the last stage."""
        for i in range(self.blocks):
            x = ResnetBlock(self.width, self.norm_groups, self.dtype, name=f"resnets_{i}")(x)
        if self.halve:
            x = Downsample(self.dtype, name="downsamplers_0")(x)
        return x


class UpBlock(nn.Module):
    """Residual blocks followed by upsampling by 2."""

    width: int
    blocks: int
    norm_groups: int
    double: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w I"]) -> Float[Array, "B h2 w2 O"]:
        """Return features of twice the sides (h2 = 2 h), or of equal sides in the last stage."""
        for i in range(self.blocks):
            x = ResnetBlock(self.width, self.norm_groups, self.dtype, name=f"resnets_{i}")(x)
        if self.double:
            x = Upsample(self.dtype, name="upsamplers_0")(x)
        return x


class MidBlock(nn.Module):
    """Two residual blocks with self-attention between them."""

    norm_groups: int
    attention: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h w D"]:
        """Return features of the same shape."""
        block = functools.partial(ResnetBlock, x.shape[-1], self.norm_groups, self.dtype)
        x = block(name="resnets_0")(x)
        if self.attention:
            x = PixelAttention(self.norm_groups, self.dtype, name="attentions_0")(x)
        return block(name="resnets_1")(x)


class ResnetBlock(nn.Module):
    """Residual block of two 3x3 convolutions."""

    width: int
    norm_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w I"]) -> Float[Array, "B h w O"]:
        """Return features of width O; a 1x1 convolution fits the skip connection if I differs."""
        h = nn.silu(_norm(self.norm_groups, self.dtype, name="norm1")(x))
        h = Convolution(self.width, self.dtype, name="conv1")(h)
        h = nn.silu(_norm(self.norm_groups, self.dtype, name="norm2")(h))
        h = Convolution(self.width, self.dtype, name="conv2")(h)
        if x.shape[-1] != self.width:
            x = Convolution(self.width, self.dtype, size=1, name="conv_shortcut")(x)
        return x + h


class PixelAttention(nn.Module):
    """Self-attention over all pixels, with one head of the full width."""

    norm_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h w D"]:
        """Return features of the same shape."""
        batch, height, width, features = x.shape
        dense = functools.partial(Dense, features, (None, "embed"), self.dtype)
        h = _norm(self.norm_groups, self.dtype, name="group_norm")(x)
        h = h.reshape(batch, height * width, features)
        q, k, v = (dense(name=f"to_{name}")(h) for name in "qkv")
        h = dense(name="to_out_0")(_attend(q, k, v))
        return x + h.reshape(x.shape)


class Downsample(nn.Module):
    """Strided convolution, padded at the bottom and on the right."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h//2 w//2 D"]:
        """Return features of half the sides."""
        padding = ((0, 1), (0, 1))
        return Convolution(x.shape[-1], self.dtype, strides=2, padding=padding, name="conv")(x)


class Upsample(nn.Module):
    """Nearest-neighbor upsampling by 2 followed by a convolution."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B 2*h 2*w D"]:
        """Return features of twice the sides."""
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return Convolution(x.shape[-1], self.dtype, name="conv")(x)


def _latent_conv(features: int, dtype: DTypeLike) -> Convolution:
    return Convolution(features, dtype, (None, None), size=1)


def _norm(groups: int, dtype: DTypeLike, *, name: str) -> nn.GroupNorm:
    # The fast variance, E[x^2] - E[x]^2, loses precision where the mean is large.
    return nn.GroupNorm(
        groups, epsilon=_NORM_EPSILON, use_fast_variance=False, dtype=dtype, name=name
    )


def _attend(
    q: Float[Array, "B N D"], k: Float[Array, "B N D"], v: Float[Array, "B N D"]
) -> Float[Array, "B N D"]:
    """Compute exact softmax attention, for a chunk of queries at a time."""

    def of_queries(q: Float[Array, "M B D"]) -> Float[Array, "M B D"]:
        logits = jnp.einsum("mbd,bnd->mbn", q, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits * q.shape[-1] ** -0.5)
        return jnp.einsum("mbn,bnd->mbd", weights.astype(v.dtype), v)

    q = q.swapaxes(0, 1)
    if len(q) > _QUERIES_AT_ONCE:
        one = lambda query: of_queries(query[None])[0]  # noqa: E731
        out = jax.lax.map(one, q, batch_size=_QUERIES_AT_ONCE)
    else:
        out = of_queries(q)
    return out.swapaxes(0, 1)
