"""Model families: map a checkpoint's `config.json` to an encoder and its parameter name table.

A family is a configuration reader, a name table, and transformers' defaults for fields that a
configuration omits. LLaVA-style checkpoints are read as the language model inside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lidit_jax.encoders.bert import Bert
from lidit_jax.encoders.decoder import Decoder
from lidit_jax.encoders.rope import Rope
from lidit_jax.encoders.t5 import T5
from lidit_jax.errors import LiditError
from lidit_jax.weights import tables
from lidit_jax.weights.tables import Rule

Config = dict[str, Any]
Encoder = Decoder | Bert | T5

_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}


@dataclass(frozen=True)
class Family:
    """Reader of the checkpoints of one `model_type`."""

    read: Callable[[Config], Encoder]
    table: tuple[Rule, ...]
    switches: Config = field(default_factory=dict)
    """transformers' defaults for options that a configuration omits."""
    sizes: Config = field(default_factory=dict)
    """Defaults for sizes, which only the language model of a LLaVA-style checkpoint omits."""
    only: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Fields that change the hidden states, with their supported values."""


def read(config: Config) -> tuple[Encoder, tuple[Rule, ...]]:
    """Return the encoder that a `config.json` describes, and its parameter name table.

    Raises:
      LiditError: for an unsupported family or option.
      KeyError: when the configuration lacks a size.
    """
    inside = "text_config" in config
    if inside:
        config = {"model_type": "llama"} | config["text_config"]
    name = config.get("model_type")
    if name not in FAMILIES:
        raise LiditError(f"a {name!r} model is not supported: choose one of {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    for option, supported in family.only.items():
        if option in config and config[option] not in supported:
            raise LiditError(
                f"{option}={config[option]!r} is not supported for {name}: only "
                f"{' or '.join(map(repr, supported))} is"
            )
    defaults = family.switches | (family.sizes if inside else {})
    return family.read(defaults | config), family.table


def _decoder(config: Config, **switches: Any) -> Decoder:
    """Build a decoder from the fields that all families share."""
    if (activation := config.get("hidden_act") or "silu") not in _ACTIVATIONS:
        raise LiditError(
            f"hidden_act={activation!r} is not supported: only {', '.join(_ACTIVATIONS)} are"
        )
    width, heads = config["hidden_size"], config["num_attention_heads"]
    shapes = {
        "vocabulary": config["vocab_size"],
        "width": width,
        "num_layers": config["num_hidden_layers"],
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_width": config.get("head_dim") or width // heads,
        "ffn_width": config["intermediate_size"],
        "norm_epsilon": config.get("rms_norm_eps", 1e-6),
        "activation": _ACTIVATIONS[activation],
    }
    if "rope" not in switches:
        switches["rope"] = Rope.from_huggingface(config)
    switches["rope"].frequencies(shapes["head_width"])  # which checks the number of its factors
    return Decoder(**shapes, **switches)


def _local(config: Config, *otherwise: bool) -> tuple[bool, ...]:
    """Return which blocks are local: from `layer_types`, else `otherwise`, repeated."""
    L = config["num_hidden_layers"]
    types = config.get("layer_types")
    if types is None:
        return tuple(otherwise[i % len(otherwise)] for i in range(L))
    if unknown := set(types) - {"sliding_attention", "full_attention"}:
        raise LiditError(
            f"layer_types with {', '.join(sorted(unknown))} is not supported: "
            "use a model of full and sliding attention"
        )
    if len(types) != L:
        raise LiditError(
            f"layer_types names {len(types)} blocks of {L}: download config.json again"
        )
    return tuple(kind == "sliding_attention" for kind in types)


def _windowed(local: tuple[bool, ...], window: int | None) -> Config:
    """Return the decoder's fields for local blocks; empty if there are none."""
    if not any(local):
        return {}
    if window is None or window < 1:
        raise LiditError(
            f"layer_types with sliding_attention need a sliding_window of 1 or more, not {window}"
        )
    return {"window": window, "local": local}


def _windowed_throughout(config: Config) -> Config:
    """Return the decoder's fields for families whose blocks are all local given a window."""
    if (window := config.get("sliding_window")) is None:
        return {}
    if not all(local := _local(config, True)):
        raise LiditError(
            f"layer_types with full_attention is not supported for {config['model_type']}: "
            "transformers ignores it"
        )
    return _windowed(local, window)


def _biased(config: Config) -> Config:
    """Return the decoder's bias fields for families where `attention_bias` sets all of them."""
    bias = bool(config.get("attention_bias"))
    return {"qkv_bias": bias, "output_bias": bias}


def _llama(config: Config) -> Decoder:
    return _decoder(config, **_biased(config))


def _mistral(config: Config) -> Decoder:
    return _decoder(config, **_windowed_throughout(config))


def _qwen(config: Config, **switches: Any) -> Decoder:
    window = config["sliding_window"] if config["use_sliding_window"] else None
    full = config["max_window_layers"]
    pattern = [window is not None and i >= full for i in range(config["num_hidden_layers"])]
    return _decoder(config, **switches, **_windowed(_local(config, *pattern), window))


def _qwen2(config: Config) -> Decoder:
    return _qwen(config, qkv_bias=True)


def _qwen3(config: Config) -> Decoder:
    return _qwen(config, qk_norm=True, **_biased(config))


def _phi3(config: Config) -> Decoder:
    # As in transformers, "su" and "yarn" of the first releases mean LongRoPE.
    field = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    scaling = config.get(field) or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    kind = "longrope" if kind in ("su", "yarn") else kind
    if kind not in ("default", "longrope"):
        raise LiditError(
            f"RoPE scaling {kind!r} is not supported for phi3: use a model with default or "
            "longrope RoPE"
        )
    rope = Rope.from_huggingface(config | {field: scaling | {"rope_type": kind}}, partial=True)
    return _decoder(config, fused=True, rope=rope, **_windowed_throughout(config))


def _gemma(config: Config, **switches: Any) -> Decoder:
    # "gelu" in the first releases means the tanh approximation, as in transformers.
    config = config | {"hidden_act": "gelu_pytorch_tanh"}
    scale = config["hidden_size"] ** 0.5
    return _decoder(config, norm_offset=True, embedding_scale=scale, **_biased(config), **switches)


def _gemma2(config: Config, *pattern: bool, **switches: Any) -> Decoder:
    local = _local(config, *(pattern or (True, False)))
    return _gemma(
        config,
        sandwich_norms=True,
        score_scale=config["query_pre_attn_scalar"] ** -0.5,
        score_cap=config["attn_logit_softcapping"],
        **_windowed(local, config.get("sliding_window")),
        **switches,
    )


def _gemma3(config: Config) -> Decoder:
    # transformers 5 has one RoPE entry per kind of block, version 4 separate fields.
    ropes = config.get("rope_parameters") or {}
    if unknown := set(ropes) - {"full_attention", "sliding_attention"}:
        raise LiditError(
            f"rope_parameters with {', '.join(sorted(unknown))} is not supported for a Gemma 3: "
            "give a RoPE for full_attention and one for sliding_attention"
        )
    everywhere, nearby = (
        Rope.from_huggingface(
            config
            | {"rope_scaling": None}
            | {"rope_parameters": {"rope_theta": theta, **(ropes.get(kind) or {}), **older}}
        )
        for kind, theta, older in (
            ("full_attention", config["rope_theta"], config.get("rope_scaling") or {}),
            ("sliding_attention", config["rope_local_base_freq"], {}),
        )
    )
    pattern = [True] * (config["sliding_window_pattern"] - 1) + [False]
    return _gemma2(config, *pattern, qk_norm=True, rope=everywhere, local_rope=nearby)


def _t5(config: Config) -> T5:
    return T5(
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


def _sizes(
    vocabulary: int, width: int, ffn: int, layers: int, heads: int, kv_heads: int | None
) -> Config:
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }


_QWEN_WINDOW = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
_QWEN_SIZES = _sizes(151936, 4096, 22016, 32, 32, 32)
_GEMMA2_SCORES = {"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096}
_GEMMA2_SIZES = _sizes(256000, 2304, 9216, 26, 8, 4)
_T5_SWITCHES = {
    "feed_forward_proj": "relu",
    "layer_norm_epsilon": 1e-6,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
}
_GATED_T5_SWITCHES = _T5_SWITCHES | {"feed_forward_proj": "gated-gelu"}

_OFF = (False, None)
_TANH_GELU = ("gelu_pytorch_tanh", None)
_GEMMA2_ONLY = {"hidden_activation": _TANH_GELU, "use_bidirectional_attention": _OFF}
_T5_ONLY = {"feed_forward_proj": ("relu", "gated-gelu")}
_BERT_ONLY = {
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
    "is_decoder": _OFF,
    "add_cross_attention": _OFF,
}

_LLAMA = Family(
    _llama, tables.DECODER, {}, _sizes(32000, 4096, 11008, 32, 32, None), {"mlp_bias": _OFF}
)
_MISTRAL = Family(
    _mistral, tables.DECODER, {"sliding_window": 4096}, _sizes(32000, 4096, 14336, 32, 32, 8)
)
_QWEN2 = Family(_qwen2, tables.DECODER, _QWEN_WINDOW, _QWEN_SIZES)
_GEMMA3 = Family(
    _gemma3,
    tables.GEMMA,
    _GEMMA2_SCORES
    | {
        "attn_logit_softcapping": None,
        "sliding_window_pattern": 6,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
    },
    _GEMMA2_SIZES | {"vocab_size": 262208},
    # transformers has the field but ignores it.
    _GEMMA2_ONLY | {"attn_logit_softcapping": (None,)},
)

FAMILIES = {
    "llama": _LLAMA,
    "mistral": _MISTRAL,
    "qwen2": _QWEN2,
    "qwen3": Family(_qwen3, tables.DECODER, _QWEN_WINDOW | {"head_dim": 128}, _QWEN_SIZES),
    "gemma": Family(
        _gemma,
        tables.DECODER,
        {"head_dim": 256},
        _sizes(256000, 3072, 24576, 28, 16, 16),
        _GEMMA2_ONLY | {"hidden_act": ("gelu", "gelu_pytorch_tanh")},
    ),
    "gemma2": Family(
        _gemma2,
        tables.GEMMA,
        _GEMMA2_SCORES | {"attn_logit_softcapping": 50.0},
        _GEMMA2_SIZES,
        _GEMMA2_ONLY,
    ),
    "gemma3_text": _GEMMA3,
    "phi3": Family(
        _phi3,
        tables.PHI3,
        {
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
        },
        _sizes(32064, 3072, 8192, 32, 32, None),
    ),
    # The original LLaVA code writes the fields of its language model at the top level.
    "llava_llama": _LLAMA,
    "llava_mistral": _MISTRAL,
    "llava_qwen": _QWEN2,
    "t5": Family(_t5, tables.T5, _T5_SWITCHES, only=_T5_ONLY),
    "mt5": Family(_t5, tables.T5, _GATED_T5_SWITCHES, only=_T5_ONLY),
    "umt5": Family(_t5, tables.UMT5, _GATED_T5_SWITCHES, only=_T5_ONLY),
    "bert": Family(Bert.from_huggingface, tables.BERT, only=_BERT_ONLY),
}
"""Families by the `model_type` of transformers."""
