"""Layers shared by refiners and backbone.

Parameters are float32 and carry logical axis names, which `lidit_jax.parallel.rules` maps to mesh
axes; compute happens in `dtype`. Parameter paths are stable and named for what they do
(`…/self_attention/query/kernel`), so that LoRA and weight tables can address them.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.spmd import with_logical_constraint
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from lidit_jax.attention import attention, attention_weights, device_in_use
from lidit_jax.models.quantized import quantized_product
from lidit_jax.models.rematerialization import BRANCH_OUTPUT

Axes = tuple[str | None, ...]
NORM_EPSILON = 1e-6


class Dense(nn.Module):
    """Linear layer over the last axis, `[..., I] -> [..., O]`."""

    features: int
    axes: Axes
    """Logical names of the kernel's two axes."""
    dtype: DTypeLike
    kernel_init: Callable = nn.initializers.xavier_uniform()
    quantization: str = "none"
    """Type of operands and gradients of the product: "int8", "fp8", or "none" for `dtype`."""

    @nn.compact
    def __call__(self, x: Float[Array, "*batch I"]) -> Float[Array, "*batch O"]:
        """Return `x @ kernel + bias`."""
        kernel = self.param(
            "kernel",
            nn.with_logical_partitioning(self.kernel_init, self.axes),
            (x.shape[-1], self.features),
            unbox=True,
        )
        bias = self.param(
            "bias",
            nn.with_logical_partitioning(nn.initializers.zeros, self.axes[-1:]),
            (self.features,),
            unbox=True,
        )
        rows, product = x.astype(self.dtype), jnp.matmul
        if self.quantization != "none":
            product = quantized_product(self.quantization)
        elif device_in_use().platform == "cpu":
            # XLA:CPU's backward products are twice as slow for 3-D activations. Other backends keep
            # batch and token axes: both may be sharded, and XLA would gather one to merge them.
            rows = rows.reshape(-1, x.shape[-1])
        # The bias is added in float32, so that its gradient, a long sum, is float32 too.
        out = (product(rows, kernel.astype(self.dtype)) + bias).astype(self.dtype)
        return out.reshape(*x.shape[:-1], self.features)


class Mlp(nn.Module):
    """Two-layer MLP: the FFN of a block, or an embedder."""

    hidden: int
    features: int
    activation: Callable
    dtype: DTypeLike
    quantization: str = "none"
    """See `Dense`."""

    @nn.compact
    def __call__(self, x: Float[Array, "*batch I"]) -> Float[Array, "*batch O"]:
        """Apply `up -> activation -> down`."""
        dense = functools.partial(Dense, dtype=self.dtype, quantization=self.quantization)
        h = self.activation(dense(self.hidden, ("embed", "mlp"), name="up")(x))
        return dense(self.features, ("mlp", "embed"), name="down")(h)


def layer_norm(dtype: DTypeLike, *, affine: bool, name: str | None) -> nn.LayerNorm:
    """Return a LayerNorm over D; `affine=False` if adaLN supplies scale and shift."""
    return nn.LayerNorm(
        epsilon=NORM_EPSILON,
        use_scale=affine,
        use_bias=affine,
        # The fast variance, E[x^2] - E[x]^2, loses precision if the mean is large.
        use_fast_variance=False,
        dtype=dtype,
        name=name,
    )


def rms_norm(dtype: DTypeLike, *, name: str | None) -> nn.RMSNorm:
    """Return an RMSNorm over the last axis, with a learned scale."""
    return nn.RMSNorm(epsilon=NORM_EPSILON, dtype=dtype, name=name)


class Attention(nn.Module):
    """Multi-head attention from `x` to `context`; self-attention when they are the same."""

    heads: int
    qk_norm: bool
    dtype: DTypeLike
    causal: bool = False
    tokens: str | None = None
    """Logical name of the axis N of `x` if its tokens may be sharded; the keys are then
    gathered."""
    kernel: str = "auto"
    """One of `lidit_jax.attention.KERNELS`."""
    quantization: str = "none"
    """See `Dense`."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        context: Float[Array, "B S D"],
        mask: Bool[Array, "B S"] | None = None,
        rotary: tuple[Float[Array, "N K"], Float[Array, "N K"]] | None = None,
    ) -> Float[Array, "B N D"]:
        """Attend from query tokens to valid key tokens, with optional rotary (cos, sin).

        If the collection `intermediates` is mutable, stores `attention_weights` [B, H, N, S] there.
        """
        width = x.shape[-1]
        dense = functools.partial(Dense, width, dtype=self.dtype, quantization=self.quantization)

        def heads(tokens: Array, name: str) -> Array:
            projected = dense(("embed", "heads"), name=name)(tokens)
            projected = projected.reshape(*tokens.shape[:-1], self.heads, width // self.heads)
            # Sharded tokens are projected first, and then gathered as keys and values.
            axis = self.tokens if tokens is x else None
            return with_logical_constraint(projected, ("batch", axis, "heads", None))

        q, k, v = heads(x, "query"), heads(context, "key"), heads(context, "value")
        if self.qk_norm:
            q, k = (
                rms_norm(self.dtype, name="query_norm")(q),
                rms_norm(self.dtype, name="key_norm")(k),
            )
        if rotary is not None:
            q, k = rotate(q, *rotary), rotate(k, *rotary)
        q = with_logical_constraint(q, ("batch", self.tokens, "heads", None))
        k, v = (with_logical_constraint(a, ("batch", None, "heads", None)) for a in (k, v))
        if self.is_mutable_collection("intermediates"):
            weights = attention_weights(q, k, mask, causal=self.causal)
            self.sow("intermediates", "attention_weights", weights)
        out = attention(
            q,
            k,
            v,
            mask,
            causal=self.causal,
            kernel=self.kernel,
            split_queries=self.tokens is not None,
        )
        out = dense(("heads", "embed"), name="out")(out.reshape(x.shape))
        return with_logical_constraint(out, ("batch", self.tokens, None))


class Modulation(nn.Module):
    """adaLN modulation: SiLU, then a zero-initialized linear layer (DiT, arXiv 2212.09748)."""

    vectors: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, condition: Float[Array, "B D"]) -> tuple[Float[Array, "B 1 D"], ...]:
        """Return `vectors` arrays that broadcast over the tokens."""
        width = condition.shape[-1]
        out = Dense(
            self.vectors * width,
            ("embed", "mlp"),
            self.dtype,
            kernel_init=nn.initializers.zeros,
            name="linear",
        )(nn.silu(condition))
        # Gathered before it is split, because slices of a sharded axis would span devices.
        out = with_logical_constraint(out, ("batch", None))
        return tuple(jnp.split(out[:, None, :].astype(jnp.float32), self.vectors, axis=-1))


def modulate(
    x: Float[Array, "B N D"], scale: Float[Array, "B 1 D"], shift: Float[Array, "B 1 D"]
) -> Float[Array, "B N D"]:
    """Return `x * (1 + scale) + shift`, the identity at initialization."""
    return (x * (1 + scale) + shift).astype(x.dtype)


def gated(
    x: Float[Array, "B N D"],
    gate: Float[Array, "B 1 D"] | Float[Array, ""],
    h: Float[Array, "B N D"],
) -> Float[Array, "B N D"]:
    """Return `x + gate * h`, the gated residual sum of adaLN-zero, in float32.

    The branch output `h` is named, so that rematerialization policies can save it.
    """
    return (x + gate * checkpoint_name(h, BRANCH_OUTPUT)).astype(x.dtype)


def sinusoids(
    t: Float[Array, " B"], size: int, max_period: float = 10_000.0
) -> Float[Array, "B size"]:
    """Return `[cos(t w_k), sin(t w_k)]` with `w_k = max_period**(-k / (size / 2))`.

    Args:
      t: model times, 0 to 1000 (for both DDPM and flow).
      size: number of features, even.
      max_period: longest wavelength divided by 2 pi.
    """
    half = size // 2
    frequencies = jnp.exp(-math.log(max_period) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = t.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimeEmbedder(nn.Module):
    """Time embedding: sinusoids, then a two-layer MLP."""

    width: int
    dtype: DTypeLike
    frequencies: int = 256

    @nn.compact
    def __call__(self, t: Float[Array, " B"]) -> Float[Array, "B D"]:
        """Embed model times t, 0 to 1000."""
        mlp = Mlp(self.width, self.width, nn.silu, self.dtype, name="mlp")
        return mlp(sinusoids(t, self.frequencies))


class SizeEmbedder(nn.Module):
    """Embedding of an image's size: height, width and height / width, a third of the channels each.

    That of PixArt-alpha (https://arxiv.org/abs/2310.00426): height and width share their weights.
    """

    width: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, size: tuple[int, int]) -> Float[Array, "1 D"]:
        """Embed a (height, width) in pixels."""
        height, width = size
        third = self.width // 3
        sides = TimeEmbedder(third, self.dtype, name="side")(jnp.array([height, width], float))
        ratio = TimeEmbedder(third, self.dtype, name="aspect")(jnp.array([height / width]))
        return jnp.concatenate([sides, ratio]).reshape(1, self.width)


def rotate(
    x: Float[Array, "B N H K"], cos: Float[Array, "N K"], sin: Float[Array, "N K"]
) -> Float[Array, "B N H K"]:
    """Apply rotary position embedding in the half-split layout (arXiv 2104.09864)."""
    first, second = jnp.split(x, 2, axis=-1)
    turned = jnp.concatenate([-second, first], axis=-1)
    out = x * cos[:, None, :].astype(jnp.float32) + turned * sin[:, None, :].astype(jnp.float32)
    return out.astype(x.dtype)


def masked_mean(tokens: Float[Array, "B S D"], mask: Bool[Array, "B S"]) -> Float[Array, "B D"]:
    """Return the mean over valid tokens, in float32; 0 if there are none."""
    weights = mask.astype(jnp.float32)[..., None]
    total = jnp.sum(tokens.astype(jnp.float32) * weights, axis=1)
    return total / jnp.maximum(jnp.sum(weights, axis=1), 1.0)


def dtype_of(name: str) -> jnp.dtype:
    """Return the compute type with a configuration's name, such as "bfloat16"."""
    return jax.dtypes.canonicalize_dtype(name)
