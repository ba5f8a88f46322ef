"""One decoder-only transformer for the LLaMA and Qwen families, read as a text encoder.

Pre-norm blocks of grouped-query attention with RoPE and a SwiGLU, RMSNorm throughout
(https://arxiv.org/abs/2302.13971). A family is a configuration here and a table of names in
`lidit_jax.weights.tables`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from lidit_jax.encoders.blocks import attention, blocks_below, layer_at, linear, positions_of, wide
from lidit_jax.encoders.rope import Rope, rotate, rotation
from lidit_jax.errors import LiditError

Params = dict[str, Any]
KeyValue = tuple[Array, Array]


class PrefixCache(NamedTuple):
    """What a constant causal prefix leaves behind: nothing after it can change it."""

    keys: Float[Array, "n P G K"]
    values: Float[Array, "n P G K"]
    features: Float[Array, "P D"]


@dataclass(frozen=True)
class Decoder:
    """Shapes and switches of a decoder; the methods are pure functions of its parameters."""

    vocabulary: int
    width: int
    num_layers: int
    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int
    norm_epsilon: float
    rope: Rope
    qkv_bias: bool = False
    """Qwen2: biases on the query, key and value projections."""
    qk_norm: bool = False
    """Qwen3: RMSNorm on every query and key head."""

    causal: ClassVar[bool] = True
    default_layer: ClassVar[int] = -3
    max_positions: ClassVar[int | None] = None

    @classmethod
    def from_huggingface(cls, config: dict) -> Decoder:
        """Reads a `config.json` of model type llama, mistral, qwen2 or qwen3.

        Raises:
          LiditError: when the configuration asks for something this decoder does not do.
        """
        if (activation := config.get("hidden_act", "silu")) != "silu":
            raise LiditError(f"hidden_act={activation!r} is not supported: use a SwiGLU model")
        width, heads = config["hidden_size"], config["num_attention_heads"]
        return cls(
            vocabulary=config["vocab_size"],
            width=width,
            num_layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_width=config.get("head_dim") or width // heads,
            ffn_width=config["intermediate_size"],
            norm_epsilon=config["rms_norm_eps"],
            rope=Rope.from_huggingface(config),
            qkv_bias=config["model_type"] == "qwen2",
            qk_norm=config["model_type"] == "qwen3",
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter by its path; those of blocks are stacked on the first axis."""
        D, F, K = self.width, self.ffn_width, self.head_width
        queries, keys = self.heads * K, self.kv_heads * K
        block = {
            "attention_norm": (D,),
            "q": (D, queries),
            "k": (D, keys),
            "v": (D, keys),
            "o": (queries, D),
            "ffn_norm": (D,),
            "gate": (D, F),
            "up": (D, F),
            "down": (F, D),
        }
        if self.qkv_bias:
            block |= {"q_bias": (queries,), "k_bias": (keys,), "v_bias": (keys,)}
        if self.qk_norm:
            block |= {"q_norm": (K,), "k_norm": (K,)}
        stacked = {f"layers/{name}": (self.num_layers, *shape) for name, shape in block.items()}
        return {"embedding": (self.vocabulary, D), **stacked, "final_norm": (D,)}

    def hidden_states(
        self, params: Params, ids: Int32[Array, "B S"], mask: Bool[Array, "B S"]
    ) -> Float[Array, "L+1 B S D"]:
        """The embeddings and the output of every block; the last one is normed, as in Hugging Face
        transformers."""
        embedded = params["embedding"][ids]
        _, states = self._run(params, ids, mask, self.num_layers, collect=lambda x, _: x)
        last = self._norm(states[-1:], params["final_norm"])
        return jnp.concatenate([embedded[None], states[:-1], last])

    def features(
        self,
        params: Params,
        ids: Int32[Array, "B S"],
        mask: Bool[Array, "B S"],
        layer: int,
        prefix: PrefixCache | None = None,
    ) -> Float[Array, "B S D"]:
        """`hidden_states(...)[layer]`, running only the blocks below it.

        With a `prefix` (of the same layer, from `prefix_cache`) only the tokens after it are
        computed; every row must start with the prefix, that is, be padded on the right.
        """
        blocks = blocks_below(layer, self.num_layers)
        x, _ = self._run(params, ids, mask, blocks, prefix)
        x = self._norm(x, params["final_norm"]) if blocks == self.num_layers else x
        if prefix is None:
            return x
        before = jnp.broadcast_to(prefix.features, (x.shape[0], *prefix.features.shape))
        return jnp.concatenate([before, x], axis=1)

    def prefix_cache(self, params: Params, ids: Int32[Array, " P"], layer: int) -> PrefixCache:
        """Keys, values and features of a constant prefix, for `features(..., prefix=...)`."""
        blocks = blocks_below(layer, self.num_layers)
        row, mask = ids[None], jnp.ones((1, len(ids)), bool)
        x, (keys, values) = self._run(params, row, mask, blocks, collect=lambda _, kv: kv)
        x = self._norm(x, params["final_norm"]) if blocks == self.num_layers else x
        return PrefixCache(keys[:, 0], values[:, 0], x[0])

    def _run(
        self,
        params: Params,
        ids: Int32[Array, "B S"],
        mask: Bool[Array, "B S"],
        blocks: int,
        prefix: PrefixCache | None = None,
        collect: Callable[[Array, KeyValue], Any] = lambda x, kv: None,
    ) -> tuple[Float[Array, "B S D"], Any]:
        """Runs the first `blocks` blocks and stacks what `collect` takes from each of them."""
        start = 0 if prefix is None else prefix.features.shape[0]
        positions = positions_of(mask)[:, start:]
        turn = rotation(self.rope, positions, self.head_width)
        tokens = jnp.arange(ids.shape[1])
        allowed = mask[:, None, :] & (tokens[start:, None] >= tokens)

        def step(x: Array, index: Array) -> tuple[Array, Any]:
            before = None if prefix is None else (prefix.keys[index], prefix.values[index])
            x, kv = self._block(layer_at(params["layers"], index), x, turn, allowed, before)
            return x, collect(x, kv)

        return jax.lax.scan(step, params["embedding"][ids[:, start:]], jnp.arange(blocks))

    def _block(
        self,
        layer: Params,
        x: Float[Array, "B S D"],
        turn: tuple[Array, Array],
        allowed: Bool[Array, "B S T"],
        prefix: KeyValue | None,
    ) -> tuple[Float[Array, "B S D"], KeyValue]:
        B, S, _ = x.shape
        h = self._norm(x, layer["attention_norm"])
        q, k, v = (
            linear(h, layer[name], layer.get(f"{name}_bias")).reshape(B, S, -1, self.head_width)
            for name in "qkv"
        )
        if self.qk_norm:
            q, k = self._norm(q, layer["q_norm"]), self._norm(k, layer["k_norm"])
        q, k = rotate(q, *turn), rotate(k, *turn)
        own = k, v
        if prefix is not None:
            k, v = (
                jnp.concatenate([jnp.broadcast_to(old, (B, *old.shape)), new], axis=1)
                for old, new in zip(prefix, own, strict=True)
            )
        x = x + linear(attention(q, k, v, allowed).reshape(B, S, -1), layer["o"])
        h = self._norm(x, layer["ffn_norm"])
        h = jax.nn.silu(linear(h, layer["gate"])) * linear(h, layer["up"])
        return x + linear(h, layer["down"]), own

    def _norm(self, x: Float[Array, "*N D"], scale: Float[Array, " D"]) -> Float[Array, "*N D"]:
        y = x.astype(wide(x.dtype))
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.norm_epsilon)
        return y.astype(x.dtype) * scale
