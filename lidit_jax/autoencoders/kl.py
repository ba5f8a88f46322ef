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
# Attention over more pixels than these is worked off in parts: at 2048 px all weights at once
# would be 17 GB.
_QUERIES_AT_ONCE = 1024


class AutoencoderKL(nn.Module):
    """Image <-> latent [B, h, w, C]; each stage but the last halves the sides.

    `encode` and `decode` speak the latents of diffusion models, `(z - shift) * scale` of the
    encoder's z, as diffusers' pipelines do.
    """

    stages: tuple[int, ...]
    """Channels of each stage, from the image inwards: 128, 256, 512, 512 in all the named ones."""
    channels: int
    """Latent channels C: 4 in SD and SDXL, 16 in SD3 and FLUX."""
    blocks: int = 2
    """Residual blocks a stage of the encoder; the decoder has one more."""
    norm_groups: int = 32
    attention: bool = True
    """Self-attention at the lowest resolution."""
    quant: bool = False
    """A 1x1 convolution after the encoder: SD and SDXL."""
    post_quant: bool = False
    """A 1x1 convolution before the decoder: SD and SDXL."""
    shift: tuple[float, ...] = (0.0,)
    """One for all latent channels, or one each."""
    scale: tuple[float, ...] = (1.0,)
    dtype: DTypeLike = jnp.float32
    """Compute type; parameters, norms' statistics and results are float32."""

    @property
    def downsample(self) -> int:
        """Image pixels a latent pixel, along each side."""
        return 2 ** (len(self.stages) - 1)

    def setup(self) -> None:
        """Names the parts."""
        shared = (self.stages, self.blocks, self.norm_groups, self.attention)
        self.encoder = Encoder(*shared, 2 * self.channels, self.dtype)
        self.decoder = Decoder(*shared, self.dtype)
        if self.quant:
            self.quant_conv = _latent_conv(2 * self.channels, self.dtype)
        if self.post_quant:
            self.post_quant_conv = _latent_conv(self.channels, self.dtype)

    def posterior(self, image: Float[Array, "B H W 3"]) -> Posterior:
        """The Gaussians of z, before shift and scale; image in [-1, 1]."""
        moments = self.encoder(image)
        return Posterior.from_moments(self.quant_conv(moments) if self.quant else moments)

    def encode(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
        """The mode's latent; image in [-1, 1], H and W multiples of the downsampling."""
        return (self.posterior(image).mean - jnp.asarray(self.shift)) * jnp.asarray(self.scale)

    def decode(self, latent: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """An image in [-1, 1] (not clipped)."""
        return self.decode_unscaled(latent / jnp.asarray(self.scale) + jnp.asarray(self.shift))

    def decode_unscaled(self, z: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """`decode` of the encoder's own z."""
        return self.decoder(self.post_quant_conv(z) if self.post_quant else z).astype(jnp.float32)

    def __call__(
        self, image: Float[Array, "B H W 3"], keys: Key[Array, " B"]
    ) -> tuple[Float[Array, "B H W 3"], Float[Array, " B"]]:
        """Reconstruction from a sampled z, and its KL to N(0, I) per latent value."""
        posterior = self.posterior(image)
        return self.decode_unscaled(posterior.sample(keys)), posterior.kl()


class Encoder(nn.Module):
    """Image to the moments of z."""

    stages: tuple[int, ...]
    blocks: int
    norm_groups: int
    attention: bool
    moments: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B h w moments"]:
        """Args: image in [-1, 1]."""
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
    """z to image."""

    stages: tuple[int, ...]
    blocks: int
    norm_groups: int
    attention: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, z: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Returns an image in [-1, 1] (not clipped)."""
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
    """Residual blocks, then half the sides."""

    width: int
    blocks: int
    norm_groups: int
    halve: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w I"]) -> Float[Array, "B h2 w2 O"]:
        """h2 = h / 2 unless it is the last stage."""
        for i in range(self.blocks):
            x = ResnetBlock(self.width, self.norm_groups, self.dtype, name=f"resnets_{i}")(x)
        if self.halve:
            x = Downsample(self.dtype, name="downsamplers_0")(x)
        return x


class UpBlock(nn.Module):
    """Residual blocks, then twice the sides."""

    width: int
    blocks: int
    norm_groups: int
    double: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w I"]) -> Float[Array, "B h2 w2 O"]:
        """h2 = 2 h unless it is the last stage."""
        for i in range(self.blocks):
            x = ResnetBlock(self.width, self.norm_groups, self.dtype, name=f"resnets_{i}")(x)
        if self.double:
            x = Upsample(self.dtype, name="upsamplers_0")(x)
        return x


class MidBlock(nn.Module):
    """Two residual blocks, self-attention between them."""

    norm_groups: int
    attention: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h w D"]:
        """Keeps the shape."""
        block = functools.partial(ResnetBlock, x.shape[-1], self.norm_groups, self.dtype)
        x = block(name="resnets_0")(x)
        if self.attention:
            x = PixelAttention(self.norm_groups, self.dtype, name="attentions_0")(x)
        return block(name="resnets_1")(x)


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions around a residual."""

    width: int
    norm_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w I"]) -> Float[Array, "B h w O"]:
        """O is the width; a 1x1 convolution fits the residual when I differs."""
        h = nn.silu(_norm(self.norm_groups, self.dtype, name="norm1")(x))
        h = Convolution(self.width, self.dtype, name="conv1")(h)
        h = nn.silu(_norm(self.norm_groups, self.dtype, name="norm2")(h))
        h = Convolution(self.width, self.dtype, name="conv2")(h)
        if x.shape[-1] != self.width:
            x = Convolution(self.width, self.dtype, size=1, name="conv_shortcut")(x)
        return x + h


class PixelAttention(nn.Module):
    """Self-attention among all pixels, with one head of the whole width."""

    norm_groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h w D"]:
        """Keeps the shape."""
        batch, height, width, features = x.shape
        dense = functools.partial(Dense, features, (None, "embed"), self.dtype)
        h = _norm(self.norm_groups, self.dtype, name="group_norm")(x)
        h = h.reshape(batch, height * width, features)
        q, k, v = (dense(name=f"to_{name}")(h) for name in "qkv")
        h = dense(name="to_out_0")(_attend(q, k, v))
        return x + h.reshape(x.shape)


class Downsample(nn.Module):
    """A strided convolution, padded below and on the right."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h//2 w//2 D"]:
        """Half the sides."""
        padding = ((0, 1), (0, 1))
        return Convolution(x.shape[-1], self.dtype, strides=2, padding=padding, name="conv")(x)


class Upsample(nn.Module):
    """Each pixel four times, then a convolution."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B 2*h 2*w D"]:
        """Twice the sides."""
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return Convolution(x.shape[-1], self.dtype, name="conv")(x)


def _latent_conv(features: int, dtype: DTypeLike) -> Convolution:
    return Convolution(features, dtype, (None, None), size=1)


def _norm(groups: int, dtype: DTypeLike, *, name: str) -> nn.GroupNorm:
    # The fast variance, E[x^2] - E[x]^2, loses digits where the mean is large.
    return nn.GroupNorm(
        groups, epsilon=_NORM_EPSILON, use_fast_variance=False, dtype=dtype, name=name
    )


def _attend(
    q: Float[Array, "B N D"], k: Float[Array, "B N D"], v: Float[Array, "B N D"]
) -> Float[Array, "B N D"]:
    """Softmax attention, exact whatever the number of queries worked off at once."""

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
