"""Conversion of GGUF metadata to a Hugging Face `config.json`, with every key used or refused.

Keys that describe the model begin with the name of its architecture. What each of them means:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and llama.cpp's `llama-model.cpp`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from lidit_jax.errors import LiditError
from lidit_jax.weights import tables

CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "t5": "T5EncoderModel",
    "t5encoder": "T5EncoderModel",
}
"""Supported architectures, and their names in transformers."""

_LONG, _SHORT, _ALL = (f"rope_{name}.weight" for name in ("factors_long", "factors_short", "freqs"))
ROPE_TENSORS = (_LONG, _SHORT, _ALL)
"""Tensors with one factor on the wavelength of each channel pair, which become configuration."""

_REMEDY = "use the model's Hugging Face folder"

_FIELDS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
"""Keys that correspond to fields of a `config.json`."""

_T5_FIELDS = {
    "block_count": "num_layers",
    "context_length": "n_positions",
    "embedding_length": "d_model",
    "feed_forward_length": "d_ff",
    "attention.head_count": "num_heads",
    "attention.key_length": "d_kv",
    "attention.layer_norm_rms_epsilon": "layer_norm_epsilon",
    "attention.relative_buckets_count": "relative_attention_num_buckets",
}

_OPTIONAL = {"attention.head_count_kv", "attention.key_length", "rope.freq_base"}

_ROPE = {
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
}
"""Keys that `_rope_scaling` reads."""

_OWN = {
    "phi3": {"attention.sliding_window", "rope.dimension_count"},
    "gemma3": {
        "attention.sliding_window",
        "attention.sliding_window_pattern",
        "rope.freq_base_swa",
    },
}
"""Keys that only one architecture's reader follows."""

_IGNORED = {
    "rope.scaling.finetuned": "describes training, not inference",
    "logit_scale": "scales logits, which an encoder never computes",
    "final_logit_softcapping": "caps logits, which an encoder never computes",
    "pooling_type": "summarizes a text; the features of all tokens are read here",
    "decoder_block_count": "sizes T5's decoder, which is not read",
    "decoder_start_token_id": "begins a text of T5's decoder, which is not read",
}
"""Keys that do not affect the hidden states, and why."""

_NEUTRAL = {
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.shared_kv_layers": (0,),
    "attention.sliding_window": (0,),
    "attn_logit_softcapping": (0.0,),
    "embedding_scale": (0.0, 1.0),
    "expert_count": (0,),
    "expert_shared_count": (0,),
    "expert_used_count": (0,),
    "leading_dense_block_count": (0,),
    "residual_scale": (0.0, 1.0),
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_ext_factor": (-1.0, 1.0),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    # Row order of queries and keys in llama.cpp, which the conversion reverses.
    "tensor_data_layout": ("Meta AI original pth",),
    "use_parallel_residual": (False,),
}
"""Keys with the values that have no effect (0 is "not set" in llama.cpp); others are refused."""

_GEMMA3_27B = 62
"""Blocks of the Gemma 3 that scales its scores by the width per head, not by the head's own."""


def model_config(
    file: object,
    metadata: Mapping[str, Any],
    tensors: Collection[str],
    rope_factors: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Return the `config.json` of the model in a GGUF file.

    Args:
      file: named in errors.
      metadata: the file's keys and values.
      tensors: the names of its tensors.
      rope_factors: the values of those that are `ROPE_TENSORS`.

    Raises:
      LiditError: for another architecture, and for a key that is missing or not supported, by its
        name.
    """
    family = metadata.get("general.architecture")
    if family not in CLASSES:
        raise LiditError(
            f"{file} holds a {family!r} model: GGUF is read for {', '.join(CLASSES)}, {_REMEDY}"
        )
    where = f"{file}: {family}"
    keys = {
        name.removeprefix(f"{family}."): value
        for name, value in metadata.items()
        if name.startswith(f"{family}.")
    }
    is_t5 = CLASSES[family] == "T5EncoderModel"
    fields = _T5_FIELDS if is_t5 else _FIELDS
    for key in fields:
        if key not in keys and (is_t5 or key not in _OPTIONAL):
            raise LiditError(f"{file} lacks {family}.{key}: download it again")
        if isinstance(keys.get(key), list):
            raise LiditError(f"{file}: {family}.{key} differs between blocks: {_REMEDY}")
    if not (tokens := metadata.get("tokenizer.ggml.tokens")):
        raise LiditError(f"{file} lacks tokenizer.ggml.tokens: download it again")
    config: dict[str, Any] = {
        "architectures": [CLASSES[family]],
        "model_type": family,
        "vocab_size": len(tokens),
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "dtype": "float32",  # dtype for transformers, so that it does not round the weights
    }
    if is_t5:
        own, expected = _t5(keys, tensors)
    else:
        own, expected = _decoder(where, family, keys, tensors, rope_factors or {})
    config |= own | {field: keys[key] for key, field in fields.items() if key in keys}
    expected = _NEUTRAL | expected | {"vocab_size": (config["vocab_size"],)}
    used = fields.keys() | _OWN.get(family, set()) | (set() if is_t5 else _ROPE)
    for key, value in keys.items():
        if key in used or key in _IGNORED:
            continue
        if not any(_same(value, wanted) for wanted in expected.get(key, ())):
            allowed = " or ".join(map(str, expected[key])) if key in expected else "not at all"
            raise LiditError(
                f"{where}.{key}={value!r} is not supported (read: {allowed}): {_REMEDY}"
            )
    return config


def tensor_names(config: Mapping[str, Any]) -> tables.GgufTable:
    """Return the table of tensor names for a configuration from `model_config`."""
    special = {"phi3": tables.GGUF_PHI3, "gemma3_text": tables.GGUF_GEMMA3}
    if config["model_type"] in ("t5", "umt5"):
        gated = config["feed_forward_proj"] == "gated-gelu"
        return tables.GGUF_GATED_T5 if gated else tables.GGUF_T5
    return special.get(config["model_type"], tables.GGUF_DECODER)


def _same(value: Any, wanted: Any) -> bool:
    """Return whether two values are equal in float32, the type that GGUF stores."""
    if isinstance(wanted, float) and not isinstance(value, str | list):
        return bool(np.isclose(value, wanted, rtol=2e-7, atol=0))
    return type(value) is type(wanted) and value == wanted


Reading = tuple[dict[str, Any], dict[str, tuple[Any, ...]]]
"""Fields of a `config.json`, and the keys that may have only the value that follows from others."""


def _t5(keys: Mapping[str, Any], tensors: Collection[str]) -> Reading:
    biases = sum(name.startswith("enc.") and "attn_rel_b" in name for name in tensors)
    kind = "umt5" if biases > 1 else "t5"
    gated = any(name.startswith("enc.") and "ffn_gate" in name for name in tensors)
    config = {
        "architectures": [f"{kind.upper()}EncoderModel"],
        "model_type": kind,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
        # llama.cpp has no key for it, and no T5 has another.
        "relative_attention_max_distance": 128,
    }
    return config, {
        "attention.causal": (False,),
        "attention.head_count_kv": (keys["attention.head_count"],),
        "attention.layer_norm_epsilon": (keys["attention.layer_norm_rms_epsilon"],),
        "attention.value_length": (keys["attention.key_length"],),
    }


def _decoder(
    where: str,
    family: str,
    keys: Mapping[str, Any],
    tensors: Collection[str],
    rope_factors: Mapping[str, Sequence[float]],
) -> Reading:
    heads, width = keys["attention.head_count"], keys["embedding_length"]
    head = keys.get("attention.key_length", width // heads)
    config = {
        "num_key_value_heads": heads,
        "head_dim": head,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in tensors,
    }
    scale = head
    if family == "gemma3":
        scale = width // heads if keys["block_count"] == _GEMMA3_27B else head
        config |= _gemma3(keys, scale)
        if rope_factors:
            raise LiditError(f"{where} with {', '.join(rope_factors)} is not supported: {_REMEDY}")
    elif family == "phi3":
        config |= {
            "partial_rotary_factor": _share(keys.get("rope.dimension_count", head), head),
            "sliding_window": keys.get("attention.sliding_window") or None,
            "original_max_position_embeddings": _original_context(keys),
        }
    if scaling := _rope_scaling(where, keys, rope_factors):
        config["rope_scaling"] = scaling
    return config, {
        "attention.causal": (True,),
        "attention.key_length_swa": (head,),
        "attention.value_length": (head,),
        "attention.value_length_swa": (head,),
        "attention.scale": (0.0, scale**-0.5),
        "rope.dimension_count": (head,),
        "rope.dimension_count_swa": (head,),
    }


def _gemma3(keys: Mapping[str, Any], scale: int) -> dict[str, Any]:
    """Return the fields of Gemma 3 alone: blocks are local but every sixth, given a window."""
    blocks, window = keys["block_count"], keys.get("attention.sliding_window", 0)
    pattern = keys.get("attention.sliding_window_pattern", 6)
    if not isinstance(pattern, list):
        pattern = [pattern == 0 or i % pattern != pattern - 1 for i in range(blocks)]
    kinds = ["sliding_attention" if local and window else "full_attention" for local in pattern]
    return {
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": scale,
        "layer_types": kinds,
        "sliding_window": window or keys["context_length"],
        "rope_local_base_freq": keys.get("rope.freq_base_swa", 10000.0),
    }


def _share(part: int, whole: int) -> float:
    """Return a share whose product with `whole` is not below `part`, as rounding might make it."""
    share = part / whole
    return share if whole * share >= part else math.nextafter(share, 1.0)


def _original_context(keys: Mapping[str, Any]) -> int:
    return keys.get("rope.scaling.original_context_length") or keys["context_length"]


def _rope_scaling(
    where: str, keys: Mapping[str, Any], factors: Mapping[str, Sequence[float]]
) -> dict[str, Any] | None:
    """Return the `rope_scaling` of a `config.json`; None for plain RoPE.

    As in llama.cpp, a factor without a type is linear, a factor of 0 is none, and the type "none"
    ignores a factor. Factors of the channel pairs are written as LongRoPE, the same for all lengths
    where the file has only one set of them.
    """
    kind = keys.get("rope.scaling.type", "linear")
    factor = keys.get("rope.scaling.factor") or keys.get("rope.scale_linear") or 1.0
    amplitude = keys.get("rope.scaling.attn_factor") or 1.0
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise LiditError(
            f"{where}.rope.scaling.type={kind!r} is not supported (read: none, linear, yarn, "
            f"longrope): {_REMEDY}"
        )
    if factors:
        short, long = (factors.get(name) or factors.get(_ALL) for name in (_SHORT, _LONG))
        if short is None or long is None or (kind == "yarn" and factor != 1.0):
            raise LiditError(
                f"{where} with {', '.join(factors)} and rope.scaling.type={kind!r} is not "
                f"supported: {_REMEDY}"
            )
        stretch = factor if kind == "linear" else 1.0
        return {
            "rope_type": "longrope",
            "short_factor": [stretch * each for each in short],
            "long_factor": [stretch * each for each in long],
            "attention_factor": amplitude,
            "original_max_position_embeddings": _original_context(keys),
        }
    if kind == "longrope":
        raise LiditError(
            f"{where}.rope.scaling.type={kind!r} is not supported without {_SHORT}: {_REMEDY}"
        )
    yarn = kind == "yarn" and factor != 1.0
    if amplitude != 1.0 and not yarn:
        raise LiditError(
            f"{where}.rope.scaling.attn_factor={amplitude!r} is not supported without yarn "
            f"(read: 1.0): {_REMEDY}"
        )
    if kind == "none" or factor == 1.0:
        return None
    scaling = {"rope_type": kind, "factor": factor}
    if yarn:
        scaling["original_max_position_embeddings"] = _original_context(keys)
        if amplitude != 1.0:
            scaling["attention_factor"] = amplitude * (0.1 * math.log(max(factor, 1.0)) + 1.0)
        for name in ("beta_fast", "beta_slow"):
            if value := keys.get(f"rope.scaling.yarn_{name}"):
                scaling[name] = value
    return scaling
