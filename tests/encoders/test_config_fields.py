"""Every field of a `config.json` that changes numbers is followed as transformers follows it, or
refused by name."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
import transformers

from lidit_jax.encoders import families
from lidit_jax.errors import LiditError
from lidit_jax.weights import huggingface
from tests.encoders.tiny_models import THREE_HEADS, randomize

DECODER = THREE_HEADS | {"num_hidden_layers": 3, "head_dim": 8, "vocab_size": 40}
DECODER |= {"hidden_size": 24, "intermediate_size": 32, "pad_token_id": 0, "eos_token_id": 1}
GEMMA2 = DECODER | {"query_pre_attn_scalar": 10, "attn_logit_softcapping": 2.0, "sliding_window": 5}
GEMMA3 = GEMMA2 | {"attn_logit_softcapping": None, "sliding_window_pattern": 3}
T5 = {"vocab_size": 40, "d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 3}
BERT = {"vocab_size": 40, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2}
BERT |= {"num_attention_heads": 3, "max_position_embeddings": 32, "type_vocab_size": 2}
BERT |= {"layer_norm_eps": 1e-6}
SMOLLM3 = DECODER | {"no_rope_layers": [1, 0, 1], "bos_token_id": 1}
OLMO3 = DECODER | {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"] * 2}
OLMO3["layer_types"] = OLMO3["layer_types"][:3]
CLIP = {name: DECODER[name] for name in ("vocab_size", "hidden_size", "intermediate_size")}
CLIP |= {"num_hidden_layers": 2, "num_attention_heads": 3, "max_position_embeddings": 14}
BASES = {
    "llama": DECODER,
    "mistral": DECODER | {"sliding_window": 8},
    "qwen2": DECODER,
    "qwen3": DECODER,
    "phi3": DECODER | {"sliding_window": 8},
    "gemma": DECODER,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
    "t5": T5,
    "umt5": T5,
    "bert": BERT,
    "qwen2_5_vl_text": DECODER
    | {"rms_norm_eps": 1e-6, "rope_parameters": {"mrope_section": [2, 1, 1]}},
    "qwen3_vl_text": DECODER | {"rope_parameters": {"mrope_section": [2, 1, 1]}},
    "smollm3": SMOLLM3,
    "olmo2": DECODER,
    "olmo3": OLMO3,
    "clip_text_model": CLIP,
    "siglip_text_model": CLIP,
    "siglip2_text_model": CLIP,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
YARN4 = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
SLIDING, FULL = "sliding_attention", "full_attention"
GEMMA3_ROPES = {
    FULL: YARN | {"rope_theta": 1e5},
    SLIDING: {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0},
}

LONG = {"type": "longrope", "short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [4.0] * 4}

SU = LONG | {"type": "su", "attention_factor": 1.5, "original_max_position_embeddings": 4096}

FOLLOWED = [
    ("llama", "hidden_act", "gelu_pytorch_tanh"),
    ("llama", "attention_bias", True),
    ("llama", "rms_norm_eps", 0.1),
    ("llama", "head_dim", 12),
    ("llama", "num_key_value_heads", 3),
    ("llama", "rope_theta", 50.0),
    ("llama", "rope_parameters", YARN | {"rope_theta": 1e4}),
    ("mistral", "sliding_window", 3),
    ("mistral", "sliding_window", None),
    ("qwen2", "rope_scaling", YARN4),
    ("qwen2", "rope_scaling", {"type": "linear", "factor": 4.0}),
    ("qwen2", "use_sliding_window", {"sliding_window": 4, "max_window_layers": 1}),
    ("qwen2", "use_sliding_window", {"sliding_window": 4, "layer_types": [FULL, SLIDING, FULL]}),
    ("qwen3", "attention_bias", True),
    ("phi3", "sliding_window", 3),
    ("phi3", "partial_rotary_factor", 0.5),
    ("phi3", "rope_scaling", LONG),
    ("phi3", "rope_scaling", SU),
    ("gemma", "attention_bias", True),
    ("gemma2", "query_pre_attn_scalar", 40),
    ("gemma2", "attn_logit_softcapping", None),
    ("gemma2", "attention_bias", True),
    ("gemma2", "layer_types", [FULL, FULL, SLIDING]),
    ("gemma3_text", "rope_parameters", GEMMA3_ROPES),
    ("gemma3_text", "rope_scaling", {"rope_type": "linear", "factor": 4.0}),
    ("gemma3_text", "rope_local_base_freq", 50.0),
    ("gemma3_text", "sliding_window_pattern", 2),
    ("t5", "feed_forward_proj", "gated-gelu"),
    ("t5", "relative_attention_max_distance", 9),
    ("t5", "layer_norm_epsilon", 0.1),
    ("umt5", "relative_attention_num_buckets", 8),
    ("bert", "layer_norm_eps", 0.1),
    ("qwen2_5_vl_text", "rope_parameters", YARN | {"mrope_section": [2, 1, 1]}),
    ("qwen2_5_vl_text", "use_sliding_window", {"sliding_window": 4, "max_window_layers": 1}),
    ("qwen3_vl_text", "attention_bias", True),
    ("smollm3", "no_rope_layers", [0, 1, 1, 0]),
    ("smollm3", "no_rope_layers", None),
    ("smollm3", "use_sliding_window", {"sliding_window": 4}),
    ("smollm3", "attention_bias", True),
    ("olmo2", "attention_bias", True),
    ("olmo3", "layer_types", None),
    ("olmo3", "rope_parameters", {FULL: YARN, SLIDING: {"rope_theta": 50.0}}),
    ("olmo3", "rope_scaling", YARN),
    ("clip_text_model", "hidden_act", "gelu"),
    ("siglip_text_model", "hidden_act", "quick_gelu"),
    ("siglip2_text_model", "layer_norm_eps", 0.1),
]
"""A dictionary beside "use_sliding_window" holds the fields that go with it."""

WITHOUT_EFFECT = [
    ("llama", "attention_dropout", 0.5),
    ("llama", "pretraining_tp", 2),
    ("llama", "rope_scaling", {"rope_type": "default"}),
    ("llama", "rope_scaling", {"rope_type": "dynamic", "factor": 2.0}),
    ("mistral", "layer_types", [SLIDING] * 3),
    ("qwen2", "sliding_window", 3),
    ("gemma", "hidden_act", "gelu"),
    ("gemma2", "final_logit_softcapping", 3.0),
    ("gemma3_text", "rope_theta", 1e6),
    ("t5", "tie_word_embeddings", False),
    ("bert", "hidden_dropout_prob", 0.5),
    ("qwen3_vl_text", "rope_parameters", {"mrope_section": [1, 2, 1], "mrope_interleaved": True}),
    ("smollm3", "no_rope_layer_interval", 2),
    ("clip_text_model", "eos_token_id", 3),
    ("siglip_text_model", "bos_token_id", 3),
]

REFUSED = [
    ("llama", "hidden_act", "relu"),
    ("llama", "mlp_bias", True),
    ("llama", "partial_rotary_factor", 0.5),
    ("llama", "rope_scaling", {"rope_type": "proportional", "factor": 2.0}),
    ("llama", "rope_parameters", {FULL: YARN, SLIDING: YARN}),
    ("mistral", "layer_types", [SLIDING, FULL, SLIDING]),
    ("qwen2", "layer_types", [FULL, SLIDING, FULL]),
    ("qwen3", "layer_types", [FULL, FULL]),
    ("phi3", "rope_scaling", YARN),  # LongRoPE to transformers, and without its factors
    ("phi3", "rope_scaling", {"rope_type": "linear", "factor": 2.0}),
    ("phi3", "rope_scaling", LONG | {"long_factor": [4.0] * 5}),
    ("phi3", "partial_rotary_factor", 1.5),
    ("gemma", "hidden_act", "relu"),
    ("gemma", "hidden_activation", "relu"),
    ("gemma", "use_bidirectional_attention", True),
    ("gemma2", "hidden_activation", "silu"),
    ("gemma2", "sliding_window", None),
    ("gemma3_text", "attn_logit_softcapping", 2.0),
    ("gemma3_text", "rope_parameters", YARN),
    ("t5", "feed_forward_proj", "gated-silu"),
    ("bert", "hidden_act", "relu"),
    ("bert", "is_decoder", True),
    ("bert", "add_cross_attention", True),
    ("bert", "position_embedding_type", "relative_key"),
    ("qwen3_vl_text", "use_sliding_window", {"sliding_window": 4}),
    ("smollm3", "mlp_bias", True),
    ("smollm3", "no_rope_layers", [1]),
    ("smollm3", "layer_types", [FULL, SLIDING, FULL]),
    ("olmo3", "rope_theta", 50.0),
    ("olmo3", "rope_parameters", YARN),
    ("olmo3", "sliding_window", None),
    ("clip_text_model", "hidden_act", "relu"),
]

WITHOUT_AUTO = {
    "t5": transformers.T5EncoderModel,
    "umt5": transformers.UMT5EncoderModel,
    "siglip_text_model": transformers.SiglipTextModel,
    "siglip2_text_model": transformers.Siglip2TextModel,
}
"""Encoders that `AutoModel` does not make."""

RANDOM = np.random.default_rng(0)
IDS = RANDOM.integers(2, 40, (2, 14)).astype(np.int32)
MASK = np.arange(14) < [[14], [9]]


def config_of(family: str, field: str = "", value: Any = None) -> dict[str, Any]:
    config = {"model_type": family} | BASES[family]
    if field == "use_sliding_window":
        return config | {field: True} | value
    return config | ({field: value} if field else {})


def transformers_model(folder: Path, config: dict[str, Any]) -> transformers.PreTrainedModel:
    """A random model of what transformers reads in a `config.json`."""
    (folder / "config.json").write_text(json.dumps(config))
    theirs = transformers.AutoConfig.from_pretrained(folder)
    torch.manual_seed(0)
    if (own := WITHOUT_AUTO.get(config["model_type"])) is not None:
        theirs._attn_implementation = "eager"
        model = own(theirs)
    else:
        model = transformers.AutoModel.from_config(theirs, attn_implementation="eager")
    randomize(model.eval())
    return model


def states_of(model: transformers.PreTrainedModel) -> np.ndarray:
    inputs = {"input_ids": torch.from_numpy(IDS).long(), "attention_mask": torch.from_numpy(MASK)}
    if model.config.model_type.startswith("siglip"):  # it attends to its padding, here token 0
        inputs = {"input_ids": torch.from_numpy(np.where(MASK, IDS, 0)).long()}
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    return torch.stack([*output.hidden_states[:-1], output.last_hidden_state]).numpy()[:, MASK]


@pytest.fixture(scope="module")
def base_states(tmp_path_factory):
    """`base_states("llama")`: what transformers computes without the changed field."""

    @functools.cache
    def states(family: str) -> np.ndarray:
        return states_of(transformers_model(tmp_path_factory.mktemp(family), config_of(family)))

    return states


def checked_states(folder: Path, family: str, field: str, value: Any) -> np.ndarray:
    """The states of transformers, which ours are compared with."""
    config = config_of(family, field, value)
    model = transformers_model(folder, config)
    theirs = states_of(model)
    model.save_pretrained(folder)
    ours, table = families.read(config)
    files = huggingface.safetensors_files(folder)
    params = huggingface.load_params(files, table, ours.shapes(), "float32")
    states = np.asarray(jax.jit(ours.hidden_states)(params, IDS, MASK))[:, MASK]
    size = np.sqrt(np.mean(theirs**2))
    # A few hundred roundings of 2**-24, on values up to some times their rms.
    assert np.abs(states - theirs).max() <= 1e-4 * size
    return theirs


@pytest.mark.parametrize(("family", "field", "value"), FOLLOWED)
def test_a_field_changes_the_states_as_in_transformers(tmp_path, base_states, family, field, value):
    theirs, base = checked_states(tmp_path, family, field, value), base_states(family)
    assert np.abs(theirs - base).max() > 1e-2 * np.sqrt(np.mean(base**2))


@pytest.mark.parametrize(("family", "field", "value"), WITHOUT_EFFECT)
def test_a_field_without_effect_has_none_either_way(tmp_path, base_states, family, field, value):
    theirs = checked_states(tmp_path, family, field, value)
    np.testing.assert_array_equal(theirs, base_states(family))


@pytest.mark.parametrize(("family", "field", "value"), REFUSED)
def test_any_other_value_is_refused_by_the_field_s_name(family, field, value):
    name = "RoPE|rope" if "rope_" in field else field
    with pytest.raises(LiditError, match=name):
        families.read(config_of(family, field, value))
