"""Text encoders of CLIP (https://arxiv.org/abs/2103.00020) and SigLIP (arXiv:2303.15343).

Pre-norm blocks with LayerNorm, learned positions and a plain FFN. CLIP's attention is causal.
SigLIP's is bidirectional over rows that are always as long as the position table: it is trained
with padding tokens that are attended to like any other. The features are those of every token; the
projections into the space shared with images are not read.
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


def quick_gelu(x: Float[Array, "B S F"]) -> Float[Array, "B S F"]:
    """Return x·sigmoid(1.702 x), the approximation of the GELU in OpenAI's CLIP."""
    return x * jax.nn.sigmoid(1.702 * x)


def exact_gelu(x: Float[Array, "B S F"]) -> Float[Array, "B S F"]:
    """Return the GELU without approximation."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": exact_gelu, "gelu_pytorch_tanh": jax.nn.gelu}
"""Activations of the FFN by their names in transformers."""


@dataclass(frozen=True)
class Clip:
    """CLIP or SigLIP hyperparameters; the methods are pure functions of the parameters."""

    vocabulary: int
    width: int
    num_layers: int
    heads: int
    ffn_width: int
    max_positions: int
    norm_epsilon: float
    activation: str
    """One of `ACTIVATIONS`."""
    causal: bool
    """CLIP: a token sees those before it, and padding is masked. SigLIP: a token sees the whole
    row, which is filled with `padding_token` to `max_positions` tokens."""
    padding_token: int = 0
    """SigLIP: the tokenizer's padding token."""

    default_layer: ClassVar[int] = -1

    @classmethod
    def clip(cls, config: dict) -> Clip:
        """Read a `config.json` of model type clip_text_model."""
        return cls._from_huggingface(config, causal=True)

    @classmethod
    def siglip(cls, config: dict) -> Clip:
        """Read a `config.json` of model type siglip_text_model or siglip2_text_model."""
        return cls._from_huggingface(config, causal=False)

    @classmethod
    def _from_huggingface(cls, config: dict, *, causal: bool) -> Clip:
        return cls(
            vocabulary=config["vocab_size"],
            width=config["hidden_size"],
            num_layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            ffn_width=config["intermediate_size"],
            max_positions=config["max_position_embeddings"],
            norm_epsilon=config["layer_norm_eps"],
            activation=config["hidden_act"],
            causal=causal,
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
            **{f"layers/{name}": (self.num_layers, *shape) for name, shape in block.items()},
            "final_norm": (D,),
            "final_norm_bias": (D,),
        }

    def hidden_states(
        self, params: Params, ids: Int32[Array, "B S"], mask: Bool[Array, "B S"]
    ) -> Float[Array, "states B S D"]:
        """Return the embeddings and the output of every block, the last one normalized.

        transformers normalizes `last_hidden_state` but not the last of its `hidden_states`.
        """
        embedded, seen = self._embed(params, ids, mask)
        states = self._run(params, embedded, seen, None)
        last = self._norm(states[-1:], params, "final_norm")
        every = jnp.concatenate([embedded[None], states[:-1], last])
        return jax.vmap(self._rows, (0, None))(every, mask)

    def features(
        self, params: Params, ids: Int32[Array, "B S"], mask: Bool[Array, "B S"], layer: Layers
    ) -> Float[Array, "B S *layers D"]:
        """Return `hidden_states(...)[layer]`, or several as [B, S, n, D], running only the blocks
        below."""
        embedded, seen = self._embed(params, ids, mask)
        return self._rows(self._run(params, embedded, seen, layer), mask)

    def _embed(
        self, params: Params, ids: Int32[Array, "B S"], mask: Bool[Array, "B S"]
    ) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"] | None]:
        """Return the embeddings of the tokens that the blocks see, and which of them are valid;
        None for all. In SigLIP, T is `max_positions`, whatever S is."""
        places = positions_of(mask)
        if self.causal:
            return embedding_lookup(params["embedding"], ids) + params["position"][places], mask
        B, T = ids.shape[0], self.max_positions
        row = jnp.arange(B)[:, None]
        # Masked tokens are written outside of the row, that is, nowhere.
        filled = jnp.full((B, T), self.padding_token, jnp.int32)
        filled = filled.at[row, jnp.where(mask, places, T)].set(ids, mode="drop")
        return embedding_lookup(params["embedding"], filled) + params["position"], None

    def _rows(
        self, states: Float[Array, "B T *layers D"], mask: Bool[Array, "B S"]
    ) -> Float[Array, "B S *layers D"]:
        """Return the states of the tokens of the input, in its order."""
        if self.causal:
            return states
        return states[jnp.arange(mask.shape[0])[:, None], positions_of(mask)]

    def _run(
        self,
        params: Params,
        x: Float[Array, "B T D"],
        mask: Bool[Array, "B T"] | None,
        layer: Layers | None,
    ) -> Array:
        """Return the states of `layer`; of None the output of every block, not normalized."""

        def block(layer: Params, x: Array) -> Array:
            return self._block(layer, x, mask)

        return scan_blocks(
            *(block, params["layers"], x, layer, self.num_layers),
            finish=lambda x: self._norm(x, params, "final_norm"),
        )

    def _block(
        self, layer: Params, x: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None
    ) -> Float[Array, "B T D"]:
        B, T, D = x.shape
        h = self._norm(x, layer, "attention_norm")
        q, k, v = (
            linear(h, layer[name], layer[f"{name}_bias"]).reshape(B, T, self.heads, -1)
            for name in "qkv"
        )
        attended = attention(q, k, v, mask, causal=self.causal, exact=True).reshape(B, T, D)
        x = x + linear(attended, layer["o"], layer["o_bias"])
        h = linear(self._norm(x, layer, "ffn_norm"), layer["up"], layer["up_bias"])
        return x + linear(ACTIVATIONS[self.activation](h), layer["down"], layer["down_bias"])

    def _norm(self, x: Float[Array, "*N D"], params: Params, name: str) -> Float[Array, "*N D"]:
        return layer_norm(x, params[name], params[f"{name}_bias"], self.norm_epsilon)
