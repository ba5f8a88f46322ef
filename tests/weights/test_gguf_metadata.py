"""Keys of a GGUF file's architecture: each one is used, without effect, or refused by its name."""

import re

import gguf
import jax
import numpy as np
import pytest
import torch
import transformers

from lidit_jax import encoders
from lidit_jax.encoders.rope import LongScaling, Rope, YarnScaling
from lidit_jax.errors import LiditError
from lidit_jax.weights.gguf_metadata import model_config
from tests.weights.test_gguf import FFN, HEADS, KV_HEADS, LAYERS, TOKENS, WIDTH, write

CONTEXT = 128
PLAIN = {
    "general.architecture": "qwen2",
    "general.name": "Tiny",
    "tokenizer.ggml.tokens": TOKENS,
    "qwen2.block_count": LAYERS,
    "qwen2.context_length": CONTEXT,
    "qwen2.embedding_length": WIDTH,
    "qwen2.feed_forward_length": FFN,
    "qwen2.attention.head_count": HEADS,
    "qwen2.attention.head_count_kv": KV_HEADS,
    "qwen2.attention.layer_norm_rms_epsilon": 1e-5,
    "qwen2.rope.freq_base": 1e5,
}
PLAIN_CONFIG = model_config("tiny.gguf", PLAIN, [])


def config_with(**keys):
    """The configuration with more keys; `rope__freq_base` stands for "qwen2.rope.freq_base"."""
    named = {f"qwen2.{name.replace('__', '.')}": value for name, value in keys.items()}
    return model_config("tiny.gguf", PLAIN | named, [])


def test_keys_are_fields_of_a_config_json():
    theirs = transformers.Qwen2Config(**PLAIN_CONFIG)
    assert (theirs.num_hidden_layers, theirs.hidden_size, theirs.intermediate_size) == (2, 32, 64)
    assert (theirs.num_attention_heads, theirs.num_key_value_heads, theirs.head_dim) == (4, 2, 8)
    assert (theirs.max_position_embeddings, theirs.vocab_size) == (CONTEXT, len(TOKENS))
    assert theirs.rope_parameters == {"rope_type": "default", "rope_theta": 1e5}
    assert theirs.rms_norm_eps == 1e-5
    assert theirs.tie_word_embeddings
    assert not model_config("tiny.gguf", PLAIN, ["output.weight"])["tie_word_embeddings"]
    assert config_with(attention__key_length=16)["head_dim"] == 16


@pytest.mark.parametrize(
    "keys",
    [
        {"rope__scaling__type": "none", "rope__scaling__factor": 4.0},
        {"rope__scaling__type": "linear", "rope__scaling__factor": 0.0},
        {"rope__scaling__type": "yarn", "rope__scaling__factor": 1.0},
        {"rope__scaling__original_context_length": 64, "rope__scaling__finetuned": True},
        {"rope__dimension_count": WIDTH // HEADS, "attention__value_length": WIDTH // HEADS},
        {"attention__scale": float(np.float32((WIDTH // HEADS) ** -0.5))},
        {"residual_scale": 1.0, "embedding_scale": 1.0},
        {"expert_count": 0, "expert_used_count": 0},
        {"attention__causal": True, "use_parallel_residual": False, "attention__sliding_window": 0},
        {"vocab_size": len(TOKENS), "pooling_type": 3, "logit_scale": 0.5},
        {"rope__scaling__yarn_ext_factor": 1.0, "rope__scaling__attn_factor": 1.0},
    ],
)
def test_neutral_values_change_nothing(keys):
    assert config_with(**keys) == PLAIN_CONFIG


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.scaling.type", "longrope"),
        ("rope.scaling.type", "dynamic"),
        ("rope.dimension_count", 4),
        ("rope.scaling.attn_factor", 1.2),  # without YaRN
        ("rope.freq_base_swa", 1e4),
        ("attention.sliding_window_pattern", 6),
        ("rope.scaling.yarn_log_multiplier", 0.1),
        ("rope.dimension_sections", [16, 24, 24, 0]),
        ("attention.scale", 0.5),
        ("attention.sliding_window", 64),
        ("attention.value_length", 4),
        ("attention.causal", False),
        ("attention.layer_norm_epsilon", 1e-5),
        ("expert_count", 8),
        ("residual_scale", 0.22),
        ("embedding_scale", 12.0),
        ("vocab_size", 7),
        ("tensor_data_layout", "another"),
        ("a_key_of_tomorrow", 1),
        ("feed_forward_length", [64, 128]),
    ],
)
def test_anything_else_is_refused_by_the_key_s_name(key, value):
    with pytest.raises(LiditError, match=rf"tiny.gguf: qwen2\.{re.escape(key)}\b.*Hugging Face"):
        model_config("tiny.gguf", PLAIN | {f"qwen2.{key}": value}, [])


def test_a_missing_size_is_named():
    keys = {name: value for name, value in PLAIN.items() if "block_count" not in name}
    with pytest.raises(LiditError, match=r"tiny.gguf lacks qwen2.block_count"):
        model_config("tiny.gguf", keys, [])


def test_keys_of_another_architecture_are_another_model_s():
    assert model_config("tiny.gguf", PLAIN | {"llama.expert_count": 8}, []) == PLAIN_CONFIG


def test_the_scaling_of_rope_is_read_as_llama_cpp_reads_it():
    """A factor alone is linear, under either name; without a first context YaRN takes all."""
    four = Rope(1e5, factor=4.0)
    for keys in (
        {"rope__scaling__type": "linear", "rope__scaling__factor": 4.0},
        {"rope__scaling__factor": 4.0},
        {"rope__scale_linear": 4.0},
    ):
        assert Rope.from_huggingface(config_with(**keys)) == four
    yarn = {"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0}
    assert Rope.from_huggingface(config_with(**yarn)).only == YarnScaling(CONTEXT)
    stronger = Rope.from_huggingface(config_with(**yarn, rope__scaling__attn_factor=1.5))
    assert stronger.amplitude == pytest.approx(1.5 * (0.1 * np.log(4) + 1))
    yarn |= {"rope__scaling__original_context_length": 32, "rope__scaling__yarn_beta_fast": 16.0}
    assert Rope.from_huggingface(config_with(**yarn)).only == YarnScaling(32, fast=16.0)


FREQS, SHORT, LONG = "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"


def test_factors_of_channel_pairs_are_read_as_llama_cpp_reads_them():
    """One set is for all lengths, and a linear factor goes on top."""

    def rope(factors, **keys):
        named = {f"qwen2.{name.replace('__', '.')}": value for name, value in keys.items()}
        return Rope.from_huggingface(model_config("tiny.gguf", PLAIN | named, [], factors))

    ones, twos = [1.0] * 4, [2.0] * 4
    assert rope({FREQS: ones}).by_length == LongScaling(CONTEXT, tuple(ones), tuple(ones))
    assert rope({FREQS: ones}).amplitude == 1.0
    linear = rope({FREQS: ones}, rope__scaling__factor=2.0)
    assert linear.by_length == LongScaling(CONTEXT, tuple(twos), tuple(twos))
    keys = {"rope__scaling__original_context_length": 32, "rope__scaling__attn_factor": 1.25}
    both = rope({SHORT: ones, LONG: twos}, **keys)
    assert (both.by_length, both.amplitude) == (LongScaling(32, tuple(ones), tuple(twos)), 1.25)


@pytest.mark.parametrize(
    ("factors", "kind"), [((SHORT,), "longrope"), ((FREQS,), "yarn"), ((LONG,), "linear")]
)
def test_other_factors_are_refused_by_name(factors, kind):
    keys = PLAIN | {"qwen2.rope.scaling.type": kind, "qwen2.rope.scaling.factor": 2.0}
    with pytest.raises(
        LiditError, match=rf"qwen2 with {factors[0]} and rope.scaling.type='{kind}'"
    ):
        model_config("tiny.gguf", keys, [], dict.fromkeys(factors, [1.0] * 4))


def other(family: str, **keys) -> dict:
    """The plain metadata as another architecture's."""
    plain = {name.replace("qwen2.", f"{family}."): value for name, value in PLAIN.items()}
    named = {f"{family}.{name.replace('__', '.')}": value for name, value in keys.items()}
    return plain | {"general.architecture": family} | named


def test_gemma_3_is_local_but_for_every_sixth_block():
    keys = other("gemma3", attention__sliding_window=8) | {"gemma3.block_count": 7}
    config = model_config("tiny.gguf", keys, [])
    kinds = [kind.partition("_")[0] for kind in config["layer_types"]]
    assert kinds == ["sliding"] * 5 + ["full", "sliding"]
    assert (config["rope_local_base_freq"], config["query_pre_attn_scalar"]) == (
        1e4,
        WIDTH // HEADS,
    )
    keys |= {"gemma3.attention.sliding_window_pattern": [True, False] * 3 + [False]}
    config = model_config("tiny.gguf", keys, [])
    assert [kind.partition("_")[0] for kind in config["layer_types"]] == ["sliding", "full"] * 3 + [
        "full"
    ]
    # Gemma 3 27B has heads of 128 channels and scales by 5376 / 32.
    keys |= {"gemma3.block_count": 62, "gemma3.attention.key_length": 16}
    keys.pop("gemma3.attention.sliding_window_pattern")
    assert model_config("tiny.gguf", keys, [])["query_pre_attn_scalar"] == WIDTH // HEADS


def test_phi_turns_the_channels_that_its_file_counts():
    """44 * (30 / 44) is below 30 in floating point."""
    keys = other("phi3", attention__key_length=44, rope__dimension_count=30)
    config = model_config("tiny.gguf", keys, [])
    assert int(44 * config["partial_rotary_factor"]) == 30
    assert config["original_max_position_embeddings"] == CONTEXT
    assert config["sliding_window"] is None


T5 = {"attention__key_length": 8, "attention__relative_buckets_count": 8}


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("gemma3", "attn_logit_softcapping", 50.0),
        ("gemma3", "attention.scale", 0.1),
        ("gemma3", "mm.tokens_per_image", 256),
        ("phi3", "expert_count", 16),
        ("t5encoder", "attention.layer_norm_epsilon", 1e-6),
        ("t5encoder", "attention.value_length", 4),
        ("t5encoder", "attention.causal", True),
        ("t5", "rope.scaling.type", "linear"),
    ],
)
def test_keys_of_other_architectures_are_refused_by_name(family, key, value):
    keys = other(family, **(T5 if "t5" in family else {}))
    for dropped in ("attention.head_count_kv", "rope.freq_base") if "t5" in family else ():
        keys.pop(f"{family}.{dropped}")
    model_config("tiny.gguf", keys, [])
    with pytest.raises(LiditError, match=rf"tiny.gguf: {family}\.{re.escape(key)}=.*Hugging Face"):
        model_config("tiny.gguf", keys | {f"{family}.{key}": value}, [])


@pytest.mark.parametrize(
    ("kind", "rope"),
    [
        ("linear", {"rope_type": "linear", "factor": 4.0}),
        ("yarn", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
    ],
)
def test_a_scaled_file_gives_the_states_of_transformers(tmp_path, monkeypatch, kind, rope):
    monkeypatch.setenv("LIDIT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "tiny.gguf"

    def scaled(writer):
        writer.add_rope_scaling_type(getattr(gguf.RopeScalingType, kind.upper()))
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(32)

    write(file, "qwen2", keys=scaled)
    encoder = encoders.load(str(file))
    config = transformers.Qwen2Config(
        **PLAIN_CONFIG | {"rope_theta": None, "rope_parameters": rope | {"rope_theta": 1e5}}
    )
    model = transformers.Qwen2Model.from_pretrained(encoder.folder, config=config).eval()
    ids = np.random.default_rng(0).integers(1, len(TOKENS), (1, 60)).astype(np.int32)
    with torch.no_grad():
        output = model(torch.from_numpy(ids).long(), output_hidden_states=True)
    theirs = torch.stack(output.hidden_states).numpy()
    ours = jax.jit(encoder.hidden_states)(encoder.params, ids, np.ones_like(ids, bool))
    # A few hundred roundings of 2**-24, on values up to some times their rms.
    assert np.abs(np.asarray(ours) - theirs).max() <= 1e-4 * np.sqrt(np.mean(theirs**2))
