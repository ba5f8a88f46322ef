"""Linguistic token refiner and collaborative refiner (paper, 3.2 and 3.3, figure 5).

In a causal LLM each token attends only to earlier ones. In the *linguistic token refiner* every
token of one LLM attends to all others; in the *collaborative refiner* the streams of several LLMs
then attend to each other. The gates of both depend on the time and the prompt.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PyTree

from lidit_jax.config.schema import RefinerConfig
from lidit_jax.errors import LiditError
from lidit_jax.models.layers import (
    Attention,
    Dense,
    Mlp,
    Modulation,
    TimeEmbedder,
    gated,
    layer_norm,
    masked_mean,
    modulate,
    rms_norm,
)
from lidit_jax.models.rematerialization import rematerialized

if TYPE_CHECKING:  # the name of a structure, which jaxtyping takes as text
    K = TypeVar("K")

GATE_MAGNITUDES = "gate_magnitudes"
"""Flax collection, stored if `mutable`, of the mean gate magnitude per block. Unlike
`intermediates` it is cheap, because it stores no attention weights."""


class RefinedStream(NamedTuple):
    """Output of the linguistic refiner for one LLM."""

    tokens: Float[Array, "B S D"]
    """Refined tokens, including the instruction; values at padding are meaningless."""
    pooled: Float[Array, "B D"] | None
    """Embedded mean-pooled features; None with `pool="none"`."""
    condition: Float[Array, "B D"]
    """Pooled plus time embedding, the condition of the gates."""


class LinguisticBlock(nn.Module):
    """Pre-norm self-attention and FFN, each with a zero-initialized gate."""

    heads: int
    config: RefinerConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S D"],
        mask: Bool[Array, "B S"],
        condition: Float[Array, "B D"],
    ) -> Float[Array, "B S D"]:
        """Return the refined tokens; store the gates if `intermediates` is mutable."""
        gate_attention = gate_mlp = jnp.ones((), self.dtype)
        if self.config.gate:
            gate_attention, gate_mlp = Modulation(2, self.dtype, name="gate")(condition)
            _leave_gates(self, gate_attention, gate_mlp)
        h = layer_norm(self.dtype, affine=True, name="attention_norm")(x)
        h = Attention(
            self.heads, False, self.dtype, causal=self.config.causal, name="self_attention"
        )(h, h, mask)
        x = gated(x, gate_attention, h)
        h = layer_norm(self.dtype, affine=True, name="mlp_norm")(x)
        width = x.shape[-1]
        h = Mlp(self.config.mlp_ratio * width, width, nn.silu, self.dtype, name="mlp")(h)
        return gated(x, gate_mlp, h)


class LayerMix(nn.Module):
    """Combination of several hidden states of one LLM, as `RefinerConfig.layer_mix` says."""

    kind: str
    dtype: DTypeLike

    @nn.compact
    def __call__(self, states: Float[Array, "B S n D"]) -> Float[Array, "B S C"]:
        """Return n D features per token for "concatenate", else D.

        The learned average starts as the equal one.
        """
        if self.kind == "concatenate":
            return states.reshape(*states.shape[:2], -1)
        normed = layer_norm(self.dtype, affine=False, name="norm")(states)
        logits = jnp.zeros(states.shape[2])
        if self.kind == "learned_average":
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, (None,))
            logits = self.param("weights", zeros, logits.shape, unbox=True)
        # The weights, and the sum, are float32.
        return jnp.sum(normed * nn.softmax(logits)[:, None], axis=2).astype(self.dtype)


class LinguisticRefiner(nn.Module):
    """Linguistic token refiner of one LLM (paper, section 3.2): two full-attention blocks.

    At initialization its gates are zero, so the output is the projection of the normalized
    features.
    """

    width: int
    heads: int
    config: RefinerConfig
    dtype: DTypeLike
    remat: str = "none"
    """See `ModelConfig.remat`."""

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "B S *layers D_k"],
        mask: Bool[Array, "B S"],
        t: Float[Array, " B"],
        time_embedding: Float[Array, "B D"] | None = None,
        prefix_length: int = 0,
    ) -> RefinedStream:
        """Refine one stream.

        Args:
          features: hidden states [B, S, D_k] of the LLM, instruction tokens first, or of n of its
            layers, [B, S, n, D_k].
          mask: valid tokens.
          t: model times, 0 to 1000; used only with `own_time_embedder`.
          time_embedding: the backbone's embedding of `t`.
          prefix_length: number of instruction tokens; used only with `pool="prompt"`.
        """
        # Padding may contain NaN, which multiplying by a mask would not remove.
        valid = jnp.expand_dims(mask, tuple(range(2, features.ndim)))
        features = jnp.where(valid, features, 0).astype(self.dtype)
        if features.ndim == 4:
            features = LayerMix(self.config.layer_mix, self.dtype, name="layer_mix")(features)
        normed = features
        if self.config.feature_norm == "rms":
            normed = rms_norm(self.dtype, name="feature_norm")(features)
        pooled = None
        if self.config.pool != "none":
            pool_from = features if self.config.pool_raw else normed
            pool_mask = mask
            if self.config.pool == "prompt":
                pool_mask = mask & (jnp.arange(mask.shape[1]) >= prefix_length)
            pooled = Mlp(self.width, self.width, nn.silu, self.dtype, name="pooled_embedder")(
                masked_mean(pool_from, pool_mask)
            )
        if self.config.own_time_embedder:
            time_embedding = TimeEmbedder(self.width, self.dtype, name="time_embedder")(t)
        if time_embedding is None:
            raise LiditError(
                "config.model.refiner.own_time_embedder=False: give the backbone's time_embedding"
            )
        condition = time_embedding if pooled is None else time_embedding + pooled

        if self.config.projection == "mlp":
            project = Mlp(self.width, self.width, nn.gelu, self.dtype, name="projection")
        else:
            project = Dense(self.width, ("features", "embed"), self.dtype, name="projection")
        x = project(normed)
        block = rematerialized(LinguisticBlock, self.remat)
        for i in range(self.config.blocks):
            x = block(self.heads, self.config, self.dtype, name=f"block_{i}")(x, mask, condition)
        return RefinedStream(x, pooled, condition)


class CollaborativeBlock(nn.Module):
    """Cross-attention from one stream to the others, then an FFN; both with adaLN-zero."""

    heads: int
    mlp_ratio: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S D"],
        others: Float[Array, "B R D"],
        others_mask: Bool[Array, "B R"],
        condition: Float[Array, "B D"],
    ) -> Float[Array, "B S D"]:
        """Attend from one stream to the concatenated others, under its own condition."""
        vectors = Modulation(6, self.dtype, name="modulation")(condition)
        scale_a, shift_a, gate_a, scale_m, shift_m, gate_m = vectors
        _leave_gates(self, gate_a, gate_m)
        h = modulate(
            layer_norm(self.dtype, affine=False, name="attention_norm")(x), scale_a, shift_a
        )
        kv = layer_norm(self.dtype, affine=False, name="others_norm")(others)
        h = Attention(self.heads, False, self.dtype, name="cross_attention")(h, kv, others_mask)
        x = gated(x, gate_a, h)
        h = modulate(layer_norm(self.dtype, affine=False, name="mlp_norm")(x), scale_m, shift_m)
        width = x.shape[-1]
        h = Mlp(self.mlp_ratio * width, width, nn.silu, self.dtype, name="mlp")(h)
        return gated(x, gate_m, h)


class CollaborativeRefiner(nn.Module):
    """Collaborative refiner (paper, section 3.3): every stream attends to all the others.

    The update is simultaneous: each stream attends to the others' tokens from *before* the block. A
    single stream is returned unchanged.
    """

    heads: int
    config: RefinerConfig
    dtype: DTypeLike
    remat: str = "none"
    """See `ModelConfig.remat`."""

    @nn.compact
    def __call__(
        self,
        streams: PyTree[Float[Array, "B ?S D"], " K"],
        masks: PyTree[Bool[Array, "B ?S"], " K"],
        conditions: Sequence[Float[Array, "B D"]],
    ) -> PyTree[Float[Array, "B ?S D"], " K"]:
        """Return the refined streams in the same order."""
        if len(streams) == 1:
            return streams
        rematerialized_block = rematerialized(CollaborativeBlock, self.remat)
        for i in range(self.config.collaborative_blocks):
            updated = []
            for k, stream in enumerate(streams):
                others = [j for j in range(len(streams)) if j != k]
                block = rematerialized_block(
                    self.heads, self.config.mlp_ratio, self.dtype, name=f"block_{i}_stream_{k}"
                )
                updated.append(
                    block(
                        stream,
                        jnp.concatenate([streams[j] for j in others], axis=1),
                        jnp.concatenate([masks[j] for j in others], axis=1),
                        conditions[k],
                    )
                )
            streams = type(streams)(updated)  # a list stays one
        return streams


def _leave_gates(block: nn.Module, *gates: Float[Array, "B 1 D"]) -> None:
    """Store the gates in `intermediates` and their mean magnitude in `GATE_MAGNITUDES`."""
    block.sow("intermediates", "gates", gates)
    block.sow(GATE_MAGNITUDES, "mean", jnp.mean(jnp.abs(jnp.stack(gates))))
