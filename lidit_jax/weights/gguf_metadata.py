"""Conversion of GGUF metadata to a Hugging Face `config.json`, with every key used or refused.

Keys that describe the model begin with the name of its architecture. What each of them means:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and llama.cpp's `llama-model.cpp`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from lidit_jax.errors import LiditError

CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""Supported architectures, and their names in transformers."""

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

_OPTIONAL = {"attention.head_count_kv", "attention.key_length", "rope.freq_base"}

_ROPE = {
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scale_linear",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
}
"""Keys that `_rope_scaling` reads."""

_IGNORED = {
    "rope.scaling.finetuned": "describes training, not inference",
    "logit_scale": "scales logits, which an encoder never computes",
    "final_logit_softcapping": "caps logits, which an encoder never computes",
    "pooling_type": "summarizes a text; the features of all tokens are read here",
}
"""Keys that do not affect the hidden states, and why."""

_NEUTRAL = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.sliding_window": (0,),
    "attn_logit_softcapping": (0.0,),
    "embedding_scale": (0.0, 1.0),
    "expert_count": (0,),
    "expert_shared_count": (0,),
    "expert_used_count": (0,),
    "leading_dense_block_count": (0,),
    "residual_scale": (0.0, 1.0),
    "rope.scaling.attn_factor": (0.0, 1.0),
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_ext_factor": (-1.0, 1.0),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    # Row order of queries and keys in llama.cpp, which the conversion reverses.
    "tensor_data_layout": ("Meta AI original pth",),
    "use_parallel_residual": (False,),
}
"""Keys with the values that have no effect (0 is "not set" in llama.cpp); others are refused."""


def model_config(
    file: object, metadata: Mapping[str, Any], tensors: Collection[str]
) -> dict[str, Any]:
    """Return the `config.json` of the model in a GGUF file.

    Args:
      file: named in errors.
      metadata: the file's keys and values.
      tensors: the names of its tensors.

    Raises:
      LiditError: for another architecture, and for a key that is missing or not supported, by its
        name.
    """
    family = metadata.get("general.architecture")
    if family not in CLASSES:
        raise LiditError(
            f"{file} holds a {family!r} model: GGUF is read for {', '.join(CLASSES)}, {_REMEDY}"
        )
    keys = {
        name.removeprefix(f"{family}."): value
        for name, value in metadata.items()
        if name.startswith(f"{family}.")
    }
    for key in _FIELDS:
        if key not in keys and key not in _OPTIONAL:
            raise LiditError(f"{file} lacks {family}.{key}: download it again")
        if isinstance(keys.get(key), list):
            raise LiditError(f"{file}: {family}.{key} differs between blocks: {_REMEDY}")
    config: dict[str, Any] = {
        "architectures": [CLASSES[family]],
        "model_type": family,
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "num_key_value_heads": keys["attention.head_count"],
        "head_dim": keys["embedding_length"] // keys["attention.head_count"],
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in tensors,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "dtype": "float32",  # dtype for transformers, so that it does not round the weights
    }
    config |= {field: keys[key] for key, field in _FIELDS.items() if key in keys}
    expected = _NEUTRAL | {
        "vocab_size": (config["vocab_size"],),
        "attention.value_length": (config["head_dim"],),
        "attention.scale": (0.0, config["head_dim"] ** -0.5),
        "rope.dimension_count": (config["head_dim"],),
    }
    for key, value in keys.items():
        if key in _FIELDS or key in _ROPE or key in _IGNORED:
            continue
        if not any(_same(value, wanted) for wanted in expected.get(key, ())):
            allowed = " or ".join(map(str, expected[key])) if key in expected else "not at all"
            raise LiditError(
                f"{file}: {family}.{key}={value!r} is not supported (read: {allowed}): {_REMEDY}"
            )
    if scaling := _rope_scaling(f"{file}: {family}", keys):
        config["rope_scaling"] = scaling
    return config


def _same(value: Any, wanted: Any) -> bool:
    """Return whether two values are equal in float32, the type that GGUF stores."""
    if isinstance(wanted, float) and not isinstance(value, str | list):
        return bool(np.isclose(value, wanted, rtol=2e-7, atol=0))
    return type(value) is type(wanted) and value == wanted


def _rope_scaling(where: str, keys: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the `rope_scaling` of a `config.json`; None for plain RoPE.

    As in llama.cpp, a factor without a type is linear, a factor of 0 is none, and the type "none"
    ignores a factor.
    """
    kind = keys.get("rope.scaling.type", "linear")
    factor = keys.get("rope.scaling.factor") or keys.get("rope.scale_linear") or 1.0
    if kind not in ("none", "linear", "yarn"):
        raise LiditError(
            f"{where}.rope.scaling.type={kind!r} is not supported (read: none, linear, yarn): "
            f"{_REMEDY}"
        )
    if kind == "none" or factor == 1.0:
        return None
    scaling = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        context = keys.get("rope.scaling.original_context_length") or keys["context_length"]
        scaling["original_max_position_embeddings"] = context
        for name in ("beta_fast", "beta_slow"):
            if value := keys.get(f"rope.scaling.yarn_{name}"):
                scaling[name] = value
    return scaling
