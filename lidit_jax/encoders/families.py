"""Model families: map a checkpoint's `config.json` to an encoder and its parameter name table.

A family is a configuration reader, a name table, and transformers' defaults for fields that a
configuration omits. Checkpoints with vision are read as the language model inside them.
"""

from __future__ import annotations

from typing import Any

from lidit_jax.encoders.decoder import Decoder
from lidit_jax.encoders.encoder_families import ENCODERS
from lidit_jax.encoders.family import OFF, Config, Encoder, Family, sizes
from lidit_jax.encoders.rope import Rope
from lidit_jax.errors import LiditError
from lidit_jax.weights import tables
from lidit_jax.weights.tables import Rule

_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}


_INSIDE = {
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "clip": "clip_text_model",
    "siglip": "siglip_text_model",
    "siglip2": "siglip2_text_model",
}
"""The `model_type` of a `text_config` that has none, by that of the whole; LLaVA's is a LLaMA."""


def read(config: Config) -> tuple[Encoder, tuple[Rule, ...]]:
    """Return the encoder that a `config.json` describes, and its parameter name table.

    Raises:
      LiditError: for an unsupported family or option.
      KeyError: when the configuration lacks a size.
    """
    inner = described(config)
    name = inner["model_type"]
    if name not in FAMILIES:
        names = ", ".join(dict.fromkeys([*FAMILIES, *_INSIDE]))
        lacks = " without a text_config" if name in _INSIDE else ""
        raise LiditError(f"a {name!r} model{lacks} is not supported: choose one of {names}")
    family = FAMILIES[name]
    for option, supported in family.only.items():
        if option in inner and inner[option] not in supported:
            raise LiditError(
                f"{option}={inner[option]!r} is not supported for {name}: only "
                f"{' or '.join(map(repr, supported))} is"
            )
    defaults = family.switches | ({} if inner is config else family.sizes)
    return family.read(defaults | inner), family.table


def described(config: Config) -> Config:
    """Return the part of a `config.json` that describes the text encoder, with its `model_type`."""
    name, text = config.get("model_type"), config.get("text_config")
    if name == "clip":  # transformers prefers what CLIP's first releases wrote
        text = config.get("text_config_dict") or text
    if text is None:
        return config if "model_type" in config else config | {"model_type": None}
    return {"model_type": _INSIDE.get(str(name), "llama")} | text


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
    return _qwen(config, qk_norm="head", **_biased(config))


def _of_text(config: Config) -> Config:
    """Return the configuration with M-RoPE read as RoPE, which it is for text: a token of an image
    has three positions, a token of text the same one thrice."""
    for name in ("rope_scaling", "rope_parameters"):
        if rope := config.get(name):
            rope = {
                option: "default" if value == "mrope" else value
                for option, value in rope.items()
                if option not in ("mrope_section", "mrope_interleaved")
            }
            config = config | {name: rope}
    return config


def _qwen2_5_vl(config: Config) -> Decoder:
    return _qwen2(_of_text(config))


def _qwen3_vl(config: Config) -> Decoder:
    return _decoder(_of_text(config), qk_norm="head", **_biased(config))


def _smollm3(config: Config) -> Decoder:
    L, interval = config["num_hidden_layers"], config["no_rope_layer_interval"]
    rotated = config.get("no_rope_layers")  # in spite of its name, 1 means RoPE
    if rotated is None and interval < 1:
        raise LiditError(f"no_rope_layer_interval={interval} is not supported: use 1 or more")
    if rotated is None:
        rotated = [(i + 1) % interval for i in range(L)]
    if len(rotated) < L:
        raise LiditError(
            f"no_rope_layers names {len(rotated)} blocks of {L}: download config.json again"
        )
    unrotated = tuple(not rope for rope in rotated[:L])
    window = config["sliding_window"] if config["use_sliding_window"] else None
    local = _local(config, *(window is not None and nope for nope in unrotated))
    return _decoder(config, unrotated=unrotated, **_biased(config), **_windowed(local, window))


def _olmo2(config: Config, **switches: Any) -> Decoder:
    norms = {"pre_norms": False, "post_norms": True, "qk_norm": "projection"}
    return _decoder(config, **norms, **_biased(config), **switches)


def _olmo3(config: Config) -> Decoder:
    theta = config["rope_theta"]
    local = _local(config, True, True, True, False)
    windowed = _windowed(local, config["sliding_window"])
    return _olmo2(config, **_two_ropes(config, theta, theta), **windowed)


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
        post_norms=True,
        score_scale=config["query_pre_attn_scalar"] ** -0.5,
        score_cap=config["attn_logit_softcapping"],
        **_windowed(local, config.get("sliding_window")),
        **switches,
    )


def _two_ropes(config: Config, theta: float, local_theta: float) -> Config:
    """Return the decoder's RoPE of full and of local blocks: one entry for each in transformers 5,
    in version 4 separate fields, whose scaling is that of the full ones."""
    ropes = config.get("rope_parameters") or {}
    if unknown := set(ropes) - {"full_attention", "sliding_attention"}:
        raise LiditError(
            f"rope_parameters with {', '.join(sorted(unknown))} is not supported for "
            f"{config['model_type']}: give a RoPE for full_attention and one for sliding_attention"
        )
    everywhere, nearby = (
        Rope.from_huggingface(
            config
            | {"rope_scaling": None}
            | {"rope_parameters": {"rope_theta": base, **(ropes.get(kind) or {}), **older}}
        )
        for kind, base, older in (
            ("full_attention", theta, config.get("rope_scaling") or {}),
            ("sliding_attention", local_theta, {}),
        )
    )
    return {"rope": everywhere, "local_rope": nearby}


def _gemma3(config: Config) -> Decoder:
    ropes = _two_ropes(config, config["rope_theta"], config["rope_local_base_freq"])
    pattern = [True] * (config["sliding_window_pattern"] - 1) + [False]
    return _gemma2(config, *pattern, qk_norm="head", **ropes)


_QWEN_WINDOW = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
_QWEN_SIZES = sizes(151936, 4096, 22016, 32, 32, 32)
_GEMMA2_SCORES = {"head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096}
_GEMMA2_SIZES = sizes(256000, 2304, 9216, 26, 8, 4)
_QWEN2_5_VL = Family(
    _qwen2_5_vl,
    tables.DECODER,
    _QWEN_WINDOW | {"max_window_layers": 80, "rms_norm_eps": 1e-5, "rope_theta": 1e6},
    sizes(152064, 8192, 29568, 80, 64, 8),
)
_OLMO = {"rms_norm_eps": 1e-5}
_OLMO_SIZES = sizes(50304, 4096, 11008, 32, 32, None)
_TANH_GELU = ("gelu_pytorch_tanh", None)
_GEMMA2_ONLY = {"hidden_activation": _TANH_GELU, "use_bidirectional_attention": OFF}

_LLAMA = Family(
    _llama, tables.DECODER, {}, sizes(32000, 4096, 11008, 32, 32, None), {"mlp_bias": OFF}
)
_MISTRAL = Family(
    _mistral, tables.DECODER, {"sliding_window": 4096}, sizes(32000, 4096, 14336, 32, 32, 8)
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
        sizes(256000, 3072, 24576, 28, 16, 16),
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
    "qwen2_5_vl": _QWEN2_5_VL,
    "qwen2_5_vl_text": _QWEN2_5_VL,
    "qwen3_vl_text": Family(
        _qwen3_vl,
        tables.DECODER,
        {"head_dim": 128, "rope_theta": 5e5},
        _QWEN_SIZES,
        # transformers ignores a window here.
        {"use_sliding_window": OFF},
    ),
    "smollm3": Family(
        _smollm3,
        tables.DECODER,
        {
            "rope_theta": 2e6,
            "no_rope_layer_interval": 4,
            "use_sliding_window": False,
            "sliding_window": None,
        },
        sizes(128256, 2048, 11008, 36, 16, 4),
        {"mlp_bias": OFF},
    ),
    "olmo2": Family(_olmo2, tables.OLMO, _OLMO, _OLMO_SIZES),
    "olmo3": Family(
        _olmo3,
        tables.OLMO,
        _OLMO | {"rope_theta": 5e5, "sliding_window": 4096},
        _OLMO_SIZES,
        # transformers 4 takes another one for all blocks, 5 for those without a window.
        {"rope_theta": (5e5,)},
    ),
    "phi3": Family(
        _phi3,
        tables.PHI3,
        {
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
        },
        sizes(32064, 3072, 8192, 32, 32, None),
    ),
    # The original LLaVA code writes the fields of its language model at the top level.
    "llava_llama": _LLAMA,
    "llava_mistral": _MISTRAL,
    "llava_qwen": _QWEN2,
    **ENCODERS,
}
"""Families by the `model_type` of transformers."""
