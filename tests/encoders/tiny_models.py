"""Tiny random models of every family, whose norms, biases, windows and caps all matter."""

from collections.abc import Callable

import torch
import transformers

SMALL = {"vocab_size": 300, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4}
GROUPED = SMALL | {
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
THREE_HEADS = GROUPED | {"num_attention_heads": 3, "num_key_value_heads": 1}
LLAMA31_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
T5_SIZES = {
    "vocab_size": 300,
    "d_model": 48,
    "d_kv": 10,
    "d_ff": 80,
    "num_layers": 4,
    "num_heads": 3,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}


def llama(**options) -> transformers.PreTrainedModel:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED, **options))


def mistral() -> transformers.PreTrainedModel:
    config = transformers.MistralConfig(**THREE_HEADS, head_dim=16, sliding_window=20)
    return transformers.MistralForCausalLM(config)


def qwen2(**options) -> transformers.PreTrainedModel:
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**GROUPED, **options))


def qwen3() -> transformers.PreTrainedModel:
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**THREE_HEADS, head_dim=16))


def phi3() -> transformers.PreTrainedModel:
    config = transformers.Phi3Config(**GROUPED, sliding_window=20, pad_token_id=0, eos_token_id=1)
    return transformers.Phi3ForCausalLM(config)


def gemma() -> transformers.PreTrainedModel:
    return transformers.GemmaForCausalLM(transformers.GemmaConfig(**THREE_HEADS, head_dim=8))


def gemma2() -> transformers.PreTrainedModel:
    config = transformers.Gemma2Config(
        **GROUPED,
        head_dim=16,
        query_pre_attn_scalar=10,
        attn_logit_softcapping=2.0,
        sliding_window=20,
    )
    return transformers.Gemma2ForCausalLM(config)


def gemma3_config() -> transformers.PreTrainedConfig:
    """A window of 20 in five blocks of six, and a stretched RoPE in the sixth."""
    sizes = THREE_HEADS | {"num_hidden_layers": 7, "head_dim": 16, "query_pre_attn_scalar": 10}
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    return transformers.Gemma3TextConfig(**sizes, sliding_window=20, rope_parameters=rope)


def gemma3() -> transformers.PreTrainedModel:
    return transformers.Gemma3ForCausalLM(gemma3_config())


def gemma3_with_vision() -> transformers.PreTrainedModel:
    config = transformers.Gemma3Config(
        text_config=gemma3_config(),
        vision_config=transformers.SiglipVisionConfig(**VISION),
        mm_tokens_per_image=4,
    )
    return transformers.Gemma3ForConditionalGeneration(config)


def smollm3() -> transformers.PreTrainedModel:
    """A window in the blocks without RoPE."""
    config = transformers.SmolLM3Config(
        **GROUPED,
        no_rope_layers=[1, 0, 0, 1],
        use_sliding_window=True,
        sliding_window=20,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=1,
    )
    return transformers.SmolLM3ForCausalLM(config)


def olmo2() -> transformers.PreTrainedModel:
    config = transformers.Olmo2Config(**GROUPED, pad_token_id=0, eos_token_id=1)
    return transformers.Olmo2ForCausalLM(config)


def olmo3() -> transformers.PreTrainedModel:
    """A window of 20 in three blocks of four, and a stretched RoPE in the fourth."""
    yarn = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32}
    config = transformers.Olmo3Config(
        **GROUPED, sliding_window=20, rope_scaling=yarn, pad_token_id=0, eos_token_id=1
    )
    return transformers.Olmo3ForCausalLM(config)


def qwen2_5_vl() -> transformers.PreTrainedModel:
    config = transformers.Qwen2_5_VLConfig(
        text_config=GROUPED
        | {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 1, 1],
            }
        },
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
        | {"out_hidden_size": 48},
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def qwen3_vl() -> transformers.PreTrainedModel:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
    config = transformers.Qwen3VLConfig(
        text_config=THREE_HEADS | {"head_dim": 16, "rope_parameters": rope},
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
        | {"out_hidden_size": 48, "num_position_embeddings": 4, "deepstack_visual_indexes": [0]},
    )
    return transformers.Qwen3VLForConditionalGeneration(config)


def llava() -> transformers.PreTrainedModel:
    """Its vocabulary is padded beyond the tokenizer's, as those of the public checkpoints."""
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**GROUPED | {"vocab_size": 320}),
        vision_config=transformers.CLIPVisionConfig(**VISION),
    )
    return transformers.LlavaForConditionalGeneration(config)


def llava_next() -> transformers.PreTrainedModel:
    config = transformers.LlavaNextConfig(
        text_config=transformers.Qwen2Config(**GROUPED),
        vision_config=transformers.CLIPVisionConfig(**VISION),
        image_grid_pinpoints=[[8, 8]],
    )
    return transformers.LlavaNextForConditionalGeneration(config)


def t5(**options) -> transformers.PreTrainedModel:
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**T5_SIZES, **options))


def umt5() -> transformers.PreTrainedModel:
    return transformers.UMT5ForConditionalGeneration(transformers.UMT5Config(**T5_SIZES))


def bert() -> transformers.PreTrainedModel:
    return transformers.BertForMaskedLM(transformers.BertConfig(**SMALL, num_attention_heads=6))


def clip() -> transformers.PreTrainedModel:
    text = SMALL | {"num_attention_heads": 6, "max_position_embeddings": 110}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=VISION))


def siglip() -> transformers.PreTrainedModel:
    text = SMALL | {"num_attention_heads": 6, "max_position_embeddings": 110}
    config = transformers.SiglipConfig(text_config=text, vision_config=VISION)
    return transformers.SiglipModel(config)


DECODERS: dict[str, Callable[[], transformers.PreTrainedModel]] = {
    "llama": llama,
    "llama-3.1": lambda: llama(rope_parameters=LLAMA31_ROPE, tie_word_embeddings=True),
    "llama-biases": lambda: llama(attention_bias=True),
    "mistral": mistral,
    "qwen2": qwen2,
    "qwen2-window": lambda: qwen2(
        use_sliding_window=True, sliding_window=20, max_window_layers=2, tie_word_embeddings=True
    ),
    "qwen3": qwen3,
    "phi3": phi3,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3": gemma3,
    "smollm3": smollm3,
    "olmo3": olmo3,
}
LAYOUTS: dict[str, Callable[[], transformers.PreTrainedModel]] = {
    "gemma3-vision": gemma3_with_vision,
    "llava": llava,
    "llava-next": llava_next,
    "olmo2": olmo2,
    "qwen2.5-vl": qwen2_5_vl,
    "qwen3-vl": qwen3_vl,
}
"""Decoders of the families above, under other names or with fewer options."""
ENCODERS: dict[str, Callable[[], transformers.PreTrainedModel]] = {
    "t5": t5,
    "t5-1.1": lambda: t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "umt5": umt5,
    "bert": bert,
    "clip": clip,
    "siglip": siglip,
}
FAMILIES = DECODERS | LAYOUTS | ENCODERS


def randomize(model: transformers.PreTrainedModel) -> None:
    """Matrices that keep the size of their input, so that attention is far from uniform; norms and
    biases far from ones and zeros."""
    for name, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        if parameter.ndim < 2:
            parameter.data += 0.3 * noise
        elif "embed" in name or "shared" in name or "relative" in name:
            parameter.data = noise
        else:
            parameter.data = noise * parameter.shape[-1] ** -0.5
        if name.endswith("SelfAttention.q.weight"):  # T5 scales its queries, not its scores
            parameter.data *= T5_SIZES["d_kv"] ** -0.5
