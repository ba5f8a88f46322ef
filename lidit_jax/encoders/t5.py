"""Text encoders of T5 (https://arxiv.org/abs/1910.10683), T5 1.1, mT5 and UMT5.

Pre-norm blocks with RMSNorm, bidirectional attention with unscaled scores, and a learned relative
position bias.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from lidit_jax.attention import attention
from lidit_jax.encoders.blocks import (
    embedding_lookup,
    linear,
    rms_norm,
    scan_blocks,
)
from lidit_jax.encoders.layer_choice import Layers

Params = dict[str, Any]


@dataclass(frozen=True)
class T5:
    """T5 hyperparameters; the methods are pure functions of the parameters."""

    vocabulary: int
    width: int
    num_layers: int
    heads: int
    head_width: int
    ffn_width: int
    norm_epsilon: float
    buckets: int
    """Number of relative position buckets, both directions together."""
    max_distance: int
    """Distance in tokens from which all distances share the last bucket."""
    gated: bool
    """Gated GELU in the FFN (T5 1.1 and later); the original T5 has a ReLU and no gate."""
    bias_in_every_block: bool
    """UMT5: each block has its own relative bias; otherwise all share that of the first."""

    causal: ClassVar[bool] = False
    default_layer: ClassVar[int] = -1
    max_positions: ClassVar[int | None] = None

    @classmethod
    def from_huggingface(cls, config: dict) -> T5:
        """Read a `config.json` of model type t5, mt5 or umt5."""
        return cls(
            vocabulary=config["vocab_size"],
            width=config["d_model"],
            num_layers=config["num_layers"],
            heads=config["num_heads"],
            head_width=config["d_kv"],
            ffn_width=config["d_ff"],
            norm_epsilon=config["layer_norm_epsilon"],
            buckets=config["relative_attention_num_buckets"],
            max_distance=config["relative_attention_max_distance"],
            gated=config["feed_forward_proj"] == "gated-gelu",
            bias_in_every_block=config["model_type"] == "umt5",
        )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter by path; blocks are stacked on the first axis."""
        D, F, inner = self.width, self.ffn_width, self.heads * self.head_width
        block = {"attention_norm": (D,), "ffn_norm": (D,), "up": (D, F), "down": (F, D)}
        block |= dict.fromkeys("qkv", (D, inner)) | {"o": (inner, D)}
        if self.gated:
            block |= {"gate": (D, F)}
        bias = {"relative_bias": (self.buckets, self.heads)}
        if self.bias_in_every_block:
            block, bias = block | bias, {}
        stacked = {f"layers/{name}": (self.num_layers, *shape) for name, shape in block.items()}
        return {"embedding": (self.vocabulary, D), **bias, **stacked, "final_norm": (D,)}

    def hidden_states(
        self, params: Params, ids: Int32[Array, "B S"], mask: Bool[Array, "B S"]
    ) -> Float[Array, "states B S D"]:
        """Return the embeddings and the output of every block, the last one normalized, as Hugging
        Face transformers does."""
        states = self._run(params, ids, mask, None)
        last = self._norm(states[-1:], params["final_norm"])
        return jnp.concatenate([params["embedding"][ids][None], states[:-1], last])

    def features(
        self, params: Params, ids: Int32[Array, "B S"], mask: Bool[Array, "B S"], layer: Layers
    ) -> Float[Array, "B S *layers D"]:
        """Return `hidden_states(...)[layer]`, or several as [B, S, n, D], running only the blocks
        below."""
        return self._run(params, ids, mask, layer)

    def bucket_of(self, length: int) -> Int32[np.ndarray, "S S"]:
        """Return the relative position bucket of every query (rows) and key of `length` tokens.

        Half of the buckets are for keys after the query. In each half, half of the buckets are
        single distances, the others grow logarithmically up to `max_distance`.
        """
        side = self.buckets // 2
        single = side // 2
        tokens = np.arange(length)
        distance = tokens - tokens[:, None]
        away = np.abs(distance)
        # float32 as in training, because rounding decides the bucket at some edges.
        octaves = np.log(np.maximum(away, 1).astype(np.float32) / np.float32(single))
        octaves = octaves / np.float32(math.log(self.max_distance / single))
        wide = single + (octaves * np.float32(side - single)).astype(np.int32)
        bucket = np.where(away < single, away, np.minimum(wide, side - 1))
        return (bucket + side * (distance > 0)).astype(np.int32)

    def _run(
        self,
        params: Params,
        ids: Int32[Array, "B S"],
        mask: Bool[Array, "B S"],
        layer: Layers | None,
    ) -> Array:
        """Return the states of `layer`; of None the output of every block, not normalized."""
        bucket = self.bucket_of(ids.shape[1])

        def block(layer: Params, x: Array) -> Array:
            bias = (layer if self.bias_in_every_block else params)["relative_bias"]
            return self._block(layer, x, mask, jnp.moveaxis(bias[bucket], -1, 0))

        x = embedding_lookup(params["embedding"], ids)
        return scan_blocks(
            *(block, params["layers"], x, layer, self.num_layers),
            finish=lambda x: self._norm(x, params["final_norm"]),
        )

    def _block(
        self, layer: Params, x: Array, mask: Bool[Array, "B S"], bias: Float[Array, "H S S"]
    ) -> Float[Array, "B S D"]:
        B, S, _ = x.shape
        h = self._norm(x, layer["attention_norm"])
        q, k, v = (linear(h, layer[name]).reshape(B, S, self.heads, -1) for name in "qkv")
        attended = attention(q, k, v, mask, scale=1.0, bias=bias, exact=True)
        x = x + linear(attended.reshape(B, S, -1), layer["o"])
        h = self._norm(x, layer["ffn_norm"])
        up = linear(h, layer["up"])
        h = jax.nn.gelu(linear(h, layer["gate"])) * up if self.gated else jax.nn.relu(up)
        return x + linear(h, layer["down"])

    def _norm(self, x: Float[Array, "*N D"], scale: Float[Array, " D"]) -> Float[Array, "*N D"]:
        return rms_norm(x, scale, self.norm_epsilon)
