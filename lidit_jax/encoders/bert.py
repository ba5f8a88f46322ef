"""BERT text encoder (https://arxiv.org/abs/1810.04805).

Post-norm blocks, learned positions, exact GELU. The token type is always 0: prompt and instruction
are one sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from lidit_jax.attention import attention
from lidit_jax.encoders.blocks import (
    embedding_lookup,
    layer_norm,
    linear,
    positions_of,
    scan_blocks,
)
from lidit_jax.encoders.layer_choice import Layers

Params = dict[str, Any]


@dataclass(frozen=True)
class Bert:
    """BERT hyperparameters; the methods are pure functions of the parameters."""

    vocabulary: int
    width: int
    num_layers: int
    heads: int
    ffn_width: int
    max_positions: int
    token_types: int
    norm_epsilon: float

    causal: ClassVar[bool] = False
    default_layer: ClassVar[int] = -1

    @classmethod
    def from_huggingface(cls, config: dict) -> Bert:
        """Read a `config.json` of model type bert."""
        return cls(
            vocabulary=config["vocab_size"],
            width=config["hidden_size"],
            num_layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            ffn_width=config["intermediate_size"],
            max_positions=config["max_position_embeddings"],
            token_types=config["type_vocab_size"],
            norm_epsilon=config["layer_norm_eps"],
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter by path; blocks are stacked on the first axis."""
        D, F = self.width, self.ffn_width
        block = dict.fromkeys("qkvo", (D, D)) | {"up": (D, F), "down": (F, D)}
        block |= {f"{name}_bias": shape[1:] for name, shape in block.items()}
        for norm in ("attention_norm", "ffn_norm"):
            block |= {norm: (D,), f"{norm}_bias": (D,)}
        return {
            "embedding": (self.vocabulary, D),
            "position": (self.max_positions, D),
            "token_type": (self.token_types, D),
            "embedding_norm": (D,),
            "embedding_norm_bias": (D,),
            **{f"layers/{name}": (self.num_layers, *shape) for name, shape in block.items()},
        }

    def hidden_states(
        self, params: Params, ids: Int32[Array, "B S"], mask: Bool[Array, "B S"]
    ) -> Float[Array, "states B S D"]:
        """Return the normalized embeddings and the output of every block."""
        embedded = self._embed(params, ids, mask)
        states = self._run(params, embedded, mask, None)
        return jnp.concatenate([embedded[None], states])

    def features(
        self, params: Params, ids: Int32[Array, "B S"], mask: Bool[Array, "B S"], layer: Layers
    ) -> Float[Array, "B S *layers D"]:
        """Return `hidden_states(...)[layer]`, or several as [B, S, n, D], running only the blocks
        below."""
        return self._run(params, self._embed(params, ids, mask), mask, layer)

    def _embed(
        self, params: Params, ids: Int32[Array, "B S"], mask: Bool[Array, "B S"]
    ) -> Float[Array, "B S D"]:
        x = embedding_lookup(params["embedding"], ids) + params["token_type"][0]
        x = x + params["position"][positions_of(mask)]
        return self._norm(x, params, "embedding_norm")

    def _run(
        self, params: Params, x: Array, mask: Bool[Array, "B S"], layer: Layers | None
    ) -> Array:
        """Return the states of `layer`; of None the output of every block."""

        def block(layer: Params, x: Array) -> Array:
            return self._block(layer, x, mask)

        return scan_blocks(block, params["layers"], x, layer, self.num_layers)

    def _block(self, layer: Params, x: Array, mask: Bool[Array, "B S"]) -> Float[Array, "B S D"]:
        B, S, D = x.shape
        q, k, v = (
            linear(x, layer[name], layer[f"{name}_bias"]).reshape(B, S, self.heads, -1)
            for name in "qkv"
        )
        attended = attention(q, k, v, mask, exact=True).reshape(B, S, D)
        x = self._norm(x + linear(attended, layer["o"], layer["o_bias"]), layer, "attention_norm")
        h = jax.nn.gelu(linear(x, layer["up"], layer["up_bias"]), approximate=False)
        return self._norm(x + linear(h, layer["down"], layer["down_bias"]), layer, "ffn_norm")

    def _norm(self, x: Float[Array, "B S D"], params: Params, name: str) -> Float[Array, "B S D"]:
        return layer_norm(x, params[name], params[f"{name}_bias"], self.norm_epsilon)
