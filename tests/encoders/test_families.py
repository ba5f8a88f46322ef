"""What a `config.json` means: published configurations, defaults, layouts of names, refusals."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from transformers.models.t5.modeling_t5 import T5Attention

from lidit_jax import encoders
from lidit_jax.encoders import families
from lidit_jax.encoders.clip import Clip
from lidit_jax.encoders.rope import Rope
from lidit_jax.encoders.t5 import T5
from lidit_jax.errors import LiditError
from lidit_jax.weights.tables import BERT, CLIP, DECODER, GEMMA, OLMO, PHI3, UMT5
from lidit_jax.weights.tables import T5 as T5_TABLE

LLAMA3_IN_LLAVA = {
    "model_type": "llama",
    "intermediate_size": 14336,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "vocab_size": 128320,
}
"""As in `xtuner/llava-llama-3-8b-v1_1-transformers`: only what differs from LLaMA's defaults."""

QWEN_IN_LLAVA = {
    "model_type": "qwen2",
    "intermediate_size": 11008,
    "rope_theta": 1000000.0,
    "vocab_size": 152000,
}
"""As in `llava-hf/llava-interleave-qwen-7b-hf`."""

GEMMA3_4B = {
    "model_type": "gemma3_text",
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 34,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "sliding_window": 1024,
}
"""As in `google/gemma-3-4b-it`, written by transformers 4."""

PLAIN = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
}


def decoder_of(config):
    return families.read(config)[0]


@pytest.mark.parametrize("wrapper", ["llava", "llava_next", "llava_qwen"])
def test_the_paper_s_llms_in_llava_checkpoints(wrapper):
    llama = decoder_of({"model_type": wrapper, "text_config": LLAMA3_IN_LLAVA})
    assert (llama.width, llama.num_layers, llama.heads, llama.kv_heads) == (4096, 32, 32, 8)
    assert (llama.vocabulary, llama.ffn_width, llama.head_width) == (128320, 14336, 128)
    assert llama.rope == Rope(500000.0)
    assert not llama.qkv_bias
    qwen = decoder_of({"model_type": wrapper, "text_config": QWEN_IN_LLAVA})
    assert (qwen.width, qwen.num_layers, qwen.heads, qwen.kv_heads) == (4096, 32, 32, 32)
    assert (qwen.vocabulary, qwen.ffn_width, qwen.head_width) == (152000, 11008, 128)
    assert qwen.qkv_bias
    assert not qwen.local


def test_a_llava_language_model_without_a_type_is_a_llama():
    vicuna = decoder_of({"model_type": "llava", "text_config": {"vocab_size": 32064}})
    assert (vicuna.vocabulary, vicuna.width, vicuna.kv_heads) == (32064, 4096, 32)


QWEN2_5_VL_3B = {
    "model_type": "qwen2_5_vl",
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "max_position_embeddings": 128000,
    "max_window_layers": 70,
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "use_sliding_window": False,
    "vision_config": {"depth": 32},
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 151936,
}
"""As in `Qwen/Qwen2.5-VL-3B-Instruct`: all in one level."""


def test_qwen2_5_vl_is_read_from_one_level_or_two():
    """Where both say something, the inner one counts, as in transformers."""
    flat = decoder_of(QWEN2_5_VL_3B)
    assert (flat.width, flat.num_layers, flat.kv_heads, flat.vocabulary) == (2048, 36, 2, 151936)
    assert flat.rope == Rope(1e6)
    assert flat.qkv_bias
    assert not flat.local
    inner = QWEN2_5_VL_3B | {"model_type": "qwen2_5_vl_text"}
    assert decoder_of(QWEN2_5_VL_3B | {"text_config": inner, "hidden_size": 1}) == flat
    del inner["model_type"]
    assert decoder_of({"model_type": "qwen2_5_vl", "text_config": inner}) == flat


def test_qwen3_vl_turns_text_as_any_rope():
    rope = {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"}
    text = {"rope_theta": 5e6, "rope_scaling": rope, "num_key_value_heads": 8}
    qwen = decoder_of({"model_type": "qwen3_vl", "text_config": text})
    assert (qwen.rope, qwen.qk_norm, qwen.kv_heads) == (Rope(5e6), "head", 8)
    assert (qwen.width, qwen.head_width, qwen.vocabulary) == (4096, 128, 151936)


def test_yarn_stays_yarn_beside_sections_of_m_rope():
    """As the model card of Qwen2.5-VL proposes for long texts."""
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    config = QWEN2_5_VL_3B | {"rope_scaling": yarn | {"mrope_section": [16, 24, 24]}}
    assert decoder_of(config).rope == Rope.from_huggingface(config | {"rope_scaling": yarn})


def test_every_fourth_block_of_smollm3_has_no_positions():
    config = PLAIN | {"model_type": "smollm3", "num_hidden_layers": 6}
    assert decoder_of(config).unrotated == (False, False, False, True, False, False)
    named = config | {"no_rope_layers": [1, 0, 1, 1, 1, 0, 1]}  # more than blocks
    assert decoder_of(named).unrotated == (False, True, False, False, False, True)
    assert decoder_of(named).rope == Rope(2e6)


def test_olmo_3_stretches_only_its_global_blocks():
    """As in `allenai/Olmo-3-7B-Instruct`, written by transformers 4."""
    yarn = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192}
    fields = {"rope_scaling": yarn, "rope_theta": 500000, "sliding_window": 4096}
    olmo = decoder_of(PLAIN | {"model_type": "olmo3", "num_hidden_layers": 8} | fields)
    assert olmo.local == (True, True, True, False) * 2
    assert (olmo.window, olmo.qk_norm, olmo.pre_norms, olmo.post_norms) == (
        4096,
        "projection",
        False,
        True,
    )
    assert olmo.local_rope == Rope(5e5)
    assert (olmo.rope.factor, olmo.norm_epsilon) == (8.0, 1e-5)


def test_clip_s_first_releases_repeat_their_text_encoder():
    """As in `openai/clip-vit-large-patch14`; what is repeated counts, with its defaults."""
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    config = {"model_type": "clip", "text_config": text | {"num_hidden_layers": 24}}
    assert families.read(config)[0].num_layers == 24
    twice = families.read(config | {"text_config_dict": text})[0]
    assert isinstance(twice, Clip)
    assert (twice.num_layers, twice.width, twice.max_positions) == (12, 768, 77)
    assert (twice.activation, twice.causal) == ("quick_gelu", True)


@pytest.mark.parametrize("whole", ["siglip", "siglip2"])
def test_siglip_2_is_the_same_model_with_more_words(whole):
    siglip = families.read({"model_type": whole, "text_config": {"vocab_size": 256000}})[0]
    assert isinstance(siglip, Clip)
    assert (siglip.vocabulary, siglip.max_positions, siglip.causal) == (256000, 64, False)


def test_gemma_3_has_five_local_blocks_for_each_global_one():
    gemma = decoder_of({"model_type": "gemma3", "text_config": GEMMA3_4B})
    assert gemma.local[:12] == (True, True, True, True, True, False) * 2
    assert len(gemma.local) == 34
    assert (gemma.window, gemma.heads, gemma.kv_heads, gemma.head_width) == (1024, 8, 4, 256)
    assert gemma.rope == Rope(1e6, factor=8.0)
    assert gemma.local_rope == Rope(1e4)
    assert gemma.score_scale == 1 / 16
    assert gemma.score_cap is None


def test_a_null_window_is_no_window():
    """Mistral 0.2 and later write null, which is not the same as nothing."""
    assert decoder_of({"model_type": "llava", "text_config": {"model_type": "mistral"}}).window
    config = {"model_type": "mistral", "sliding_window": None}
    assert not decoder_of({"model_type": "llava", "text_config": config}).local


@pytest.mark.parametrize("name", [n for n in families.FAMILIES if not n.startswith("llava")])
def test_defaults_are_those_of_transformers(name):
    family = families.FAMILIES[name]
    theirs = transformers.CONFIG_MAPPING[name]()
    theirs = getattr(theirs, "text_config", theirs)
    for field, value in (family.switches | family.sizes).items():
        if field in ("rope_theta", "rope_local_base_freq"):
            kind = "sliding_attention" if "local" in field else "full_attention"
            ropes = theirs.rope_parameters
            assert ropes.get(kind, ropes)["rope_theta"] == value
        elif field == "sliding_window_pattern":
            assert theirs.layer_types.index("full_attention") == value - 1
        elif field != "sliding_window" or getattr(theirs, "use_sliding_window", True):
            theirs_has = getattr(theirs, field, None)
            assert theirs_has == value or (value is None and field == "num_key_value_heads")


def rename(folder: Path, target: Path, *prefixes: tuple[str, str]) -> Path:
    """A copy of a model whose tensors' names begin differently; the first match counts."""
    shutil.copytree(folder, target)
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    renamed = {}
    for name, tensor in tensors.items():
        old, new = next((p for p in prefixes if name.startswith(p[0])), ("", ""))
        renamed[new + name.removeprefix(old)] = tensor
    assert renamed.keys() != tensors.keys()
    safetensors.numpy.save_file(renamed, target / "model.safetensors")
    return target


def assert_equal_params(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)


def test_llava_layouts_of_transformers_4_and_5_are_the_same_model(tiny, tiny_folder, tmp_path):
    folder, encoder = tiny_folder("llava"), tiny("llava").encoder
    names = safetensors.numpy.load_file(folder / "model.safetensors").keys()
    assert "language_model.model.norm.weight" in names  # 4, and what 5 saves
    five = rename(
        folder,
        tmp_path / "five",
        ("language_model.lm_head", "lm_head"),
        ("language_model.model.", "model.language_model."),
        ("", "model."),
    )
    assert_equal_params(encoders.load(str(five)), encoder)


def test_qwen_vl_layouts_of_transformers_4_and_5_are_the_same_model(tiny, tiny_folder, tmp_path):
    folder, encoder = tiny_folder("qwen2.5-vl"), tiny("qwen2.5-vl").encoder
    names = safetensors.numpy.load_file(folder / "model.safetensors").keys()
    assert "model.norm.weight" in names  # 4, and what 5 saves
    assert any(name.startswith("visual.") for name in names)
    five = rename(
        folder,
        tmp_path / "five",
        ("visual.", "model.visual."),
        ("model.", "model.language_model."),
    )
    assert_equal_params(encoders.load(str(five)), encoder)


def test_a_clip_text_encoder_may_stand_alone(tiny, tiny_folder, tmp_path):
    """As in a diffusion pipeline's `text_encoder`: its own names only, with or without a prefix."""
    folder, encoder = tiny_folder("clip"), tiny("clip").encoder
    config = json.loads((folder / "config.json").read_text())
    for prefix in ("text_model.", ""):
        copy = rename(
            folder, tmp_path / f"alone{prefix}", ("text_model.", f"{prefix}"), ("", "vision_model.")
        )
        (copy / "config.json").write_text(json.dumps(config["text_config"]))
        assert_equal_params(encoders.load(str(copy)), encoder)


def test_the_original_llava_code_keeps_its_language_model_at_the_top(tiny, tmp_path):
    folder, encoder = tiny("llava").encoder.folder, tiny("llava").encoder
    original = rename(
        folder,
        tmp_path / "original",
        ("language_model.", ""),
        ("vision_tower.", "model.vision_tower.vision_tower."),
        ("multi_modal_projector.", "model.mm_projector."),
    )
    config = json.loads((folder / "config.json").read_text())
    flat = config["text_config"] | {"model_type": "llava_llama", "mm_hidden_size": 16}
    (original / "config.json").write_text(json.dumps(flat))
    assert_equal_params(encoders.load(str(original)), encoder)


def test_a_t5_may_repeat_its_embedding(tiny, tmp_path):
    encoder = tiny("t5").encoder
    copy = rename(encoder.folder, tmp_path / "copy", ("decoder.", "decoder.again."))
    tensors = safetensors.numpy.load_file(copy / "model.safetensors")
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"].copy()
    safetensors.numpy.save_file(tensors, copy / "model.safetensors")
    assert_equal_params(encoders.load(str(copy)), encoder)


@pytest.mark.parametrize("table", [DECODER, PHI3, GEMMA, OLMO, T5_TABLE, UMT5, BERT, CLIP])
def test_tables_give_every_name_one_place(table):
    targets = [rule.target for rule in table if rule.target is not None]
    assert len(targets) == len(set(targets))


@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 20)])
def test_distances_fall_into_the_buckets_of_transformers(buckets, max_distance):
    config = transformers.T5Config(
        relative_attention_num_buckets=buckets, relative_attention_max_distance=max_distance
    )
    encoder = families.read(config.to_dict())[0]
    assert isinstance(encoder, T5)
    tokens = torch.arange(300)
    theirs = T5Attention._relative_position_bucket(
        tokens[None, :] - tokens[:, None], True, buckets, max_distance
    )
    np.testing.assert_array_equal(encoder.bucket_of(300), theirs.numpy())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gpt2"}, r"a 'gpt2' model is not supported: choose one of llama, "),
        ({"model_type": "clip"}, "a 'clip' model without a text_config is not supported"),
        ({"model_type": "llama", "hidden_act": "relu"}, "hidden_act='relu' is not supported"),
        ({"model_type": "smollm3", "no_rope_layers": [1]}, "no_rope_layers names 1 blocks of 2"),
        ({"model_type": "smollm3", "no_rope_layer_interval": 0}, "no_rope_layer_interval=0 is not"),
        ({"model_type": "olmo3", "rope_theta": 1e6}, "rope_theta=1000000.0 is not supported for"),
        (
            {"model_type": "qwen2", "rope_scaling": {"type": "axial", "factor": 4.0}},
            "RoPE scaling 'axial' is not supported: use a model with default, linear, llama3",
        ),
        (
            {"model_type": "phi3", "rope_scaling": {"type": "longrope"}},
            "RoPE scaling 'longrope' lacks 'short_factor'",
        ),
        (
            {"model_type": "llama", "partial_rotary_factor": 0.75},
            "partial_rotary_factor=0.75 is not supported: use a model whose RoPE turns whole heads",
        ),
        (
            {"model_type": "gemma3_text", "use_bidirectional_attention": True},
            "use_bidirectional_attention=True is not supported for gemma3_text: only False",
        ),
        (
            {"model_type": "gemma2", "hidden_activation": "relu"},
            "hidden_activation='relu' is not supported for gemma2: only 'gelu_pytorch",
        ),
        (
            {"model_type": "gemma2", "layer_types": ["chunked_attention"] * 2},
            "layer_types with chunked_attention is not supported",
        ),
    ],
)
def test_what_is_not_supported_is_named(config, message):
    with pytest.raises(LiditError, match=message):
        families.read(PLAIN | config)


def test_an_ffn_that_t5_does_not_have_is_named():
    config = transformers.T5Config(feed_forward_proj="gated-silu").to_dict()
    with pytest.raises(LiditError, match="feed_forward_proj='gated-silu' is not supported"):
        families.read(config)
