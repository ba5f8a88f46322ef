"""Family of checkpoints: how the `config.json` files of one `model_type` become an encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lidit_jax.encoders.bert import Bert
from lidit_jax.encoders.clip import Clip
from lidit_jax.encoders.decoder import Decoder
from lidit_jax.encoders.t5 import T5
from lidit_jax.weights.tables import Rule

Config = dict[str, Any]
Encoder = Decoder | Bert | T5 | Clip


@dataclass(frozen=True)
class Family:
    """Reader of the checkpoints of one `model_type`."""

    read: Callable[[Config], Encoder]
    table: tuple[Rule, ...]
    switches: Config = field(default_factory=dict)
    """transformers' defaults for options that a configuration omits."""
    sizes: Config = field(default_factory=dict)
    """Defaults for sizes, which only the `text_config` of a larger model omits."""
    only: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Fields that change the hidden states, with their supported values."""


OFF = (False, None)
"""Values of a switch that must be off."""


def sizes(
    vocabulary: int, width: int, ffn: int, layers: int, heads: int, kv_heads: int | None
) -> Config:
    """Return the size fields of a `config.json`."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }
