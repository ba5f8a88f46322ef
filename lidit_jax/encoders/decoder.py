"""Decoder-only transformer of the LLaMA, Qwen, Gemma, Phi and OLMo families, as a text encoder.

Blocks of grouped-query attention with RoPE and a gated FFN, RMSNorm throughout
(https://arxiv.org/abs/2302.13971). A family is a reader in `lidit_jax.encoders.families` and a
table of names in `lidit_jax.weights.tables`; settings that differ between blocks (window, RoPE) are
selected by block index inside the layer scan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from lidit_jax.attention import attention
from lidit_jax.encoders.blocks import (
    embedding_lookup,
    layer_at,
    linear,
    positions_of,
    rms_norm,
    scan_states,
    split_by_rows,
)
from lidit_jax.encoders.layer_choice import Layers
from lidit_jax.encoders.rope import Rope, rotate, rotation

Params = dict[str, Any]
KeyValue = tuple[Array, Array]

ACTIVATIONS = {"silu": jax.nn.silu, "gelu_tanh": jax.nn.gelu}
"""Activations of the gated FFN; the GELU is the tanh approximation."""


class PrefixCache(NamedTuple):
    """Keys, values and features of a constant causal prefix, independent of later tokens."""

    keys: Float[Array, "n P G K"]
    values: Float[Array, "n P G K"]
    features: Float[Array, "P *layers D"]


class TokenPositions(NamedTuple):
    """RoPE and attention mask of a block's tokens."""

    cos_sin: tuple[Float[Array, "B S 1 half"], Float[Array, "B S 1 half"]]
    """Cosine and sine of the rotation of queries and keys."""
    visible: Bool[Array, "B S T"] | None
    """Which of the T keys each of the S queries attends to; None for all."""


@dataclass(frozen=True)
class Decoder:
    """Decoder hyperparameters; the methods are pure functions of the parameters."""

    vocabulary: int
    width: int
    num_layers: int
    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int
    norm_epsilon: float
    rope: Rope
    activation: str = "silu"
    """One of `ACTIVATIONS`."""
    qkv_bias: bool = False
    """Qwen2: biases on the query, key and value projections."""
    output_bias: bool = False
    """Bias on the output projection of attention."""
    qk_norm: str | None = None
    """RMSNorm of queries and keys: "head" (Qwen3, Gemma 3) for each head, "projection" (OLMo) for
    all heads together; None for no norm."""
    fused: bool = False
    """Phi-3: one matrix for queries, keys and values, one for gate and up."""
    norm_offset: bool = False
    """Gemma: norms multiply by 1 + weight."""
    pre_norms: bool = True
    """Norms before attention and FFN; OLMo 2 and 3 have none there."""
    post_norms: bool = False
    """Gemma 2 and 3, OLMo 2 and 3: norms after attention and FFN, before the residual sum."""
    embedding_scale: float = 1.0
    """Gemma: embeddings are multiplied by the square root of the width."""
    score_scale: float | None = None
    """Scale of attention scores; None for K**-0.5."""
    score_cap: float | None = None
    """Gemma 2: tanh soft cap of attention scores."""
    local: tuple[bool, ...] = ()
    """Whether each block uses local (sliding-window) attention; empty for none."""
    window: int | None = None
    """Window of local blocks in tokens, including the query; None for full causal attention."""
    local_rope: Rope | None = None
    """Gemma 3, OLMo 3: RoPE of local blocks; None for the same as in the other blocks."""
    unrotated: tuple[bool, ...] = ()
    """SmolLM3: whether each block has no positions at all (NoPE); empty for none."""

    causal: ClassVar[bool] = True
    default_layer: ClassVar[int] = -3
    max_positions: ClassVar[int | None] = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter by path; blocks are stacked on the first axis."""
        D, F, K = self.width, self.ffn_width, self.head_width
        queries, keys = self.heads * K, self.kv_heads * K
        block = {"o": (queries, D), "down": (F, D)}
        if self.pre_norms:
            block |= {"attention_norm": (D,), "ffn_norm": (D,)}
        if self.fused:
            block |= {"qkv": (D, queries + 2 * keys), "gate_up": (D, 2 * F)}
        else:
            block |= {"q": (D, queries), "k": (D, keys), "v": (D, keys)}
            block |= {"gate": (D, F), "up": (D, F)}
        if self.qkv_bias:
            block |= {"q_bias": (queries,), "k_bias": (keys,), "v_bias": (keys,)}
        if self.output_bias:
            block |= {"o_bias": (D,)}
        if self.qk_norm:
            each = self.qk_norm == "head"
            block |= {"q_norm": (K if each else queries,), "k_norm": (K if each else keys,)}
        if self.post_norms:
            block |= {"attention_post_norm": (D,), "ffn_post_norm": (D,)}
        stacked = {f"layers/{name}": (self.num_layers, *shape) for name, shape in block.items()}
        return {"embedding": (self.vocabulary, D), **stacked, "final_norm": (D,)}

    def hidden_states(
        self, params: Params, ids: Int32[Array, "B S"], mask: Bool[Array, "B S"]
    ) -> Float[Array, "states B S D"]:
        """Return the embeddings and the output of every block, the last one normalized, as Hugging
        Face transformers does."""
        embedded = self._embed(params, ids)
        _, states = self._run(params, ids, mask, self.num_layers, collect=lambda x, _: x)
        last = self._norm(states[-1:], params["final_norm"])
        return jnp.concatenate([embedded[None], states[:-1], last])

    def features(
        self,
        params: Params,
        ids: Int32[Array, "B S"],
        mask: Bool[Array, "B S"],
        layer: Layers,
        prefix: PrefixCache | None = None,
    ) -> Float[Array, "B S *layers D"]:
        """Return `hidden_states(...)[layer]`, or several as [B, S, n, D], running only the blocks
        below.

        With a `prefix` (of the same layer, from `prefix_cache`) only the tokens after it are
        computed; every row must start with the prefix, that is, be padded on the right. It is not
        used for rows so long that their RoPE may differ from that of the prefix alone.
        """
        if not self.constant_prefix(mask.shape[1]):
            prefix = None
        x, _ = self._run(params, ids, mask, layer, prefix)
        if prefix is None:
            return x
        before = jnp.broadcast_to(prefix.features, (x.shape[0], *prefix.features.shape))
        return jnp.concatenate([before, x], axis=1)

    def constant_prefix(self, length: int) -> bool:
        """Return whether features of a prefix are the same in all texts of up to `length` tokens;
        with some RoPE scaling they depend on what follows, from some length on."""
        ropes = (self.rope, self.local_rope)
        return not any(rope is not None and rope.varies(length) for rope in ropes)

    def prefix_cache(self, params: Params, ids: Int32[Array, " P"], layer: Layers) -> PrefixCache:
        """Compute the cache of a constant prefix, for `features(..., prefix=...)`."""
        row, mask = ids[None], jnp.ones((1, len(ids)), bool)
        x, (keys, values) = self._run(params, row, mask, layer, collect=lambda _, kv: kv)
        return PrefixCache(keys[:, 0], values[:, 0], x[0])

    def _run(
        self,
        params: Params,
        ids: Int32[Array, "B S"],
        mask: Bool[Array, "B S"],
        layer: Layers,
        prefix: PrefixCache | None = None,
        collect: Callable[[Array, KeyValue], Any] = lambda x, kv: None,
    ) -> tuple[Float[Array, "B T *layers D"], Any]:
        """Run the blocks below `layer`, whose states are returned, and stack what `collect` returns
        for each of them."""
        start = 0 if prefix is None else prefix.features.shape[0]
        view_of = self._views(mask, start)

        def step(x: Array, index: Array) -> tuple[Array, Any]:
            before = None if prefix is None else (prefix.keys[index], prefix.values[index])
            block = layer_at(params["layers"], index)
            x, kv = self._block(block, x, view_of(index), mask, before)
            x = split_by_rows(x)
            return x, collect(x, kv)

        return scan_states(
            *(step, self._embed(params, ids[:, start:]), layer, self.num_layers),
            finish=lambda x: self._norm(x, params["final_norm"]),
        )

    def _embed(self, params: Params, ids: Int32[Array, "B S"]) -> Float[Array, "B S D"]:
        x = embedding_lookup(params["embedding"], ids)
        # The factor is rounded to the model's type first, as in training.
        return x * jnp.asarray(self.embedding_scale, x.dtype)

    def _views(self, mask: Bool[Array, "B T"], start: int) -> Callable[[Array], TokenPositions]:
        """Return a function from block index to the positions and mask of tokens from `start`."""
        none = (False,) * self.num_layers
        kinds = list(zip(self.local or none, self.unrotated or none, strict=True))
        distinct = list(dict.fromkeys(kinds))
        views = [self._view(mask, start, *kind) for kind in distinct]
        if len(views) == 1:
            return lambda index: views[0]
        kind_of = jnp.asarray([distinct.index(kind) for kind in kinds])
        stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *views)
        return lambda index: jax.tree.map(lambda arrays: arrays[kind_of[index]], stacked)

    def _view(
        self, mask: Bool[Array, "B T"], start: int, local: bool, unrotated: bool
    ) -> TokenPositions:
        """Return the positions and mask of tokens from `start` in one kind of block."""
        rope = self.local_rope if local and self.local_rope is not None else self.rope
        positions, length = positions_of(mask)[:, start:], mask.shape[1]
        cosine, sine = rotation(rope, positions, self.head_width, length)
        if unrotated:
            cosine, sine = jnp.ones_like(cosine), jnp.zeros_like(sine)
        if not any(self.local):
            return TokenPositions((cosine, sine), None)
        tokens = jnp.arange(length)
        distance = tokens[start:, None] - tokens
        reach = self.window if local and self.window is not None else length
        return TokenPositions((cosine, sine), (distance < reach)[None])

    def _block(
        self,
        layer: Params,
        x: Float[Array, "B S D"],
        view: TokenPositions,
        mask: Bool[Array, "B T"],
        prefix: KeyValue | None,
    ) -> tuple[Float[Array, "B S D"], KeyValue]:
        B, S, _ = x.shape
        h = self._norm(x, layer["attention_norm"]) if self.pre_norms else x
        q, k, v = self._queries_keys_values(layer, h)
        q, k = rotate(q, *view.cos_sin), rotate(k, *view.cos_sin)
        own = k, v
        if prefix is not None:
            k, v = (
                jnp.concatenate([jnp.broadcast_to(old, (B, *old.shape)), new], axis=1)
                for old, new in zip(prefix, own, strict=True)
            )
        attended = attention(
            q,
            k,
            v,
            mask,
            causal=True,
            query_offset=mask.shape[1] - S,
            allowed=view.visible,
            scale=self.score_scale,
            soft_cap=self.score_cap,
            exact=True,
        ).reshape(B, S, -1)
        h = linear(attended, layer["o"], layer.get("o_bias"))
        x = x + (self._norm(h, layer["attention_post_norm"]) if self.post_norms else h)
        h = self._ffn(layer, self._norm(x, layer["ffn_norm"]) if self.pre_norms else x)
        return x + (self._norm(h, layer["ffn_post_norm"]) if self.post_norms else h), own

    def _queries_keys_values(
        self, layer: Params, h: Float[Array, "B S D"]
    ) -> list[Float[Array, "B S heads K"]]:
        if self.fused:
            queries, keys = self.heads * self.head_width, self.kv_heads * self.head_width
            projected = jnp.split(linear(h, layer["qkv"]), (queries, queries + keys), axis=-1)
        else:
            projected = [linear(h, layer[name], layer.get(f"{name}_bias")) for name in "qkv"]
        if self.qk_norm == "projection":
            projected[:2] = self._normalized(layer, *projected[:2])
        heads = [y.reshape(*y.shape[:2], -1, self.head_width) for y in projected]
        if self.qk_norm == "head":
            heads[:2] = self._normalized(layer, *heads[:2])
        return heads

    def _normalized(self, layer: Params, q: Array, k: Array) -> tuple[Array, Array]:
        """Return queries and keys, whole or by head, after their norms."""
        return self._norm(q, layer["q_norm"]), self._norm(k, layer["k_norm"])

    def _ffn(self, layer: Params, h: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        if self.fused:
            gate, up = jnp.split(linear(h, layer["gate_up"]), 2, axis=-1)
        else:
            gate, up = linear(h, layer["gate"]), linear(h, layer["up"])
        return linear(ACTIVATIONS[self.activation](gate) * up, layer["down"])

    def _norm(self, x: Float[Array, "*N D"], scale: Float[Array, " D"]) -> Float[Array, "*N D"]:
        return rms_norm(x, scale, self.norm_epsilon, offset=self.norm_offset)
