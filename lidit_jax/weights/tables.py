"""Tables from tensor names in Hugging Face and GGUF files to parameters: one per model."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINEAR = "transpose"


@dataclass(frozen=True)
class Rule:
    """Rule from tensor names that match `pattern` as a whole to a parameter.

    The first group of the pattern, if any, is the index of the block. PyTorch keeps a
    linear map as [out, in]; `transform="transpose"` gives the [in, out] of this package, and "conv"
    the [height, width, in, out] of a convolution.
    """

    pattern: re.Pattern[str]
    target: str | None
    """Path of the parameter; None skips the tensor."""
    transform: str = ""


def _table(prefix: str, *rules: tuple[str, str | None] | tuple[str, str, str]) -> tuple[Rule, ...]:
    return tuple(
        Rule(re.compile(prefix + rule[0]), rule[1], rule[2] if len(rule) == 3 else "")
        for rule in rules
    )


_BLOCK = r"layers\.(\d+)\."
_BERT_BLOCK = r"encoder\.layer\.(\d+)\."
_CLIP_BLOCK = r"encoder\.layers\.(\d+)\."
_T5_BLOCK = r"encoder\.block\.(\d+)\.layer\."

_LANGUAGE_MODEL = r"(?:model\.)?(?:language_model\.)?(?:model\.)?"
"""Prefix of names in causal models, in models without a head, and of the language model in
checkpoints with vision: LLaVA's is `language_model.model.` in transformers 4, Qwen-VL's is `model.`
there, and both are `model.language_model.` in version 5."""

_TRUNK = (
    (r"embed_tokens\.weight", "embedding"),
    (_BLOCK + r"input_layernorm\.weight", "layers/attention_norm"),
    (_BLOCK + r"self_attn\.q_proj\.weight", "layers/q", _LINEAR),
    (_BLOCK + r"self_attn\.k_proj\.weight", "layers/k", _LINEAR),
    (_BLOCK + r"self_attn\.v_proj\.weight", "layers/v", _LINEAR),
    (_BLOCK + r"self_attn\.o_proj\.weight", "layers/o", _LINEAR),
    (_BLOCK + r"self_attn\.q_proj\.bias", "layers/q_bias"),
    (_BLOCK + r"self_attn\.k_proj\.bias", "layers/k_bias"),
    (_BLOCK + r"self_attn\.v_proj\.bias", "layers/v_bias"),
    (_BLOCK + r"self_attn\.o_proj\.bias", "layers/o_bias"),
    (_BLOCK + r"self_attn\.q_norm\.weight", "layers/q_norm"),
    (_BLOCK + r"self_attn\.k_norm\.weight", "layers/k_norm"),
    (_BLOCK + r"mlp\.gate_proj\.weight", "layers/gate", _LINEAR),
    (_BLOCK + r"mlp\.up_proj\.weight", "layers/up", _LINEAR),
    (_BLOCK + r"mlp\.down_proj\.weight", "layers/down", _LINEAR),
    (r"norm\.weight", "final_norm"),
    (r"lm_head\.weight", None),
    (_BLOCK + r"self_attn\.rotary_emb\.inv_freq", None),
    (r"(?:vision_tower|visual|multi_modal_projector|mm_projector|vision_resampler)\..*", None),
    (r"image_newline", None),
)

DECODER = _table(
    _LANGUAGE_MODEL, *_TRUNK, (_BLOCK + r"post_attention_layernorm\.weight", "layers/ffn_norm")
)
"""Table of LLaMA, Mistral, Qwen2, Qwen3, SmolLM3 and Gemma."""

PHI3 = _table(
    _LANGUAGE_MODEL,
    *_TRUNK,
    (_BLOCK + r"post_attention_layernorm\.weight", "layers/ffn_norm"),
    (_BLOCK + r"self_attn\.qkv_proj\.weight", "layers/qkv", _LINEAR),
    (_BLOCK + r"mlp\.gate_up_proj\.weight", "layers/gate_up", _LINEAR),
)

GEMMA = _table(
    _LANGUAGE_MODEL,
    *_TRUNK,
    (_BLOCK + r"post_attention_layernorm\.weight", "layers/attention_post_norm"),
    (_BLOCK + r"pre_feedforward_layernorm\.weight", "layers/ffn_norm"),
    (_BLOCK + r"post_feedforward_layernorm\.weight", "layers/ffn_post_norm"),
)
"""Table of Gemma 2 and 3, where LLaMA's name of the FFN norm is the norm after attention."""

OLMO = _table(
    _LANGUAGE_MODEL,
    *_TRUNK,
    (_BLOCK + r"post_attention_layernorm\.weight", "layers/attention_post_norm"),
    (_BLOCK + r"post_feedforward_layernorm\.weight", "layers/ffn_post_norm"),
)
"""Table of OLMo 2 and 3, which have norms after attention and FFN only."""

_T5_ENCODER = (
    (r"shared\.weight", "embedding"),
    (r"encoder\.embed_tokens\.weight", None),  # the same again
    (_T5_BLOCK + r"0\.layer_norm\.weight", "layers/attention_norm"),
    (_T5_BLOCK + r"0\.SelfAttention\.q\.weight", "layers/q", _LINEAR),
    (_T5_BLOCK + r"0\.SelfAttention\.k\.weight", "layers/k", _LINEAR),
    (_T5_BLOCK + r"0\.SelfAttention\.v\.weight", "layers/v", _LINEAR),
    (_T5_BLOCK + r"0\.SelfAttention\.o\.weight", "layers/o", _LINEAR),
    (_T5_BLOCK + r"1\.layer_norm\.weight", "layers/ffn_norm"),
    (_T5_BLOCK + r"1\.DenseReluDense\.wi_0\.weight", "layers/gate", _LINEAR),
    (_T5_BLOCK + r"1\.DenseReluDense\.wi(?:_1)?\.weight", "layers/up", _LINEAR),
    (_T5_BLOCK + r"1\.DenseReluDense\.wo\.weight", "layers/down", _LINEAR),
    (r"encoder\.final_layer_norm\.weight", "final_norm"),
    (r"decoder\..*", None),
    (r"lm_head\.weight", None),
)
_T5_BIAS = r"0\.SelfAttention\.relative_attention_bias\.weight"

T5 = _table("", *_T5_ENCODER, (r"encoder\.block\.0\.layer\." + _T5_BIAS, "relative_bias"))
"""Table of T5, T5 1.1 and mT5, with or without their decoder."""

UMT5 = _table("", *_T5_ENCODER, (_T5_BLOCK + _T5_BIAS, "layers/relative_bias"))

BERT = _table(
    r"(?:bert\.)?",
    (r"embeddings\.word_embeddings\.weight", "embedding"),
    (r"embeddings\.position_embeddings\.weight", "position"),
    (r"embeddings\.token_type_embeddings\.weight", "token_type"),
    (r"embeddings\.LayerNorm\.(?:weight|gamma)", "embedding_norm"),
    (r"embeddings\.LayerNorm\.(?:bias|beta)", "embedding_norm_bias"),
    (_BERT_BLOCK + r"attention\.self\.query\.weight", "layers/q", _LINEAR),
    (_BERT_BLOCK + r"attention\.self\.query\.bias", "layers/q_bias"),
    (_BERT_BLOCK + r"attention\.self\.key\.weight", "layers/k", _LINEAR),
    (_BERT_BLOCK + r"attention\.self\.key\.bias", "layers/k_bias"),
    (_BERT_BLOCK + r"attention\.self\.value\.weight", "layers/v", _LINEAR),
    (_BERT_BLOCK + r"attention\.self\.value\.bias", "layers/v_bias"),
    (_BERT_BLOCK + r"attention\.output\.dense\.weight", "layers/o", _LINEAR),
    (_BERT_BLOCK + r"attention\.output\.dense\.bias", "layers/o_bias"),
    (_BERT_BLOCK + r"attention\.output\.LayerNorm\.(?:weight|gamma)", "layers/attention_norm"),
    (_BERT_BLOCK + r"attention\.output\.LayerNorm\.(?:bias|beta)", "layers/attention_norm_bias"),
    (_BERT_BLOCK + r"intermediate\.dense\.weight", "layers/up", _LINEAR),
    (_BERT_BLOCK + r"intermediate\.dense\.bias", "layers/up_bias"),
    (_BERT_BLOCK + r"output\.dense\.weight", "layers/down", _LINEAR),
    (_BERT_BLOCK + r"output\.dense\.bias", "layers/down_bias"),
    (_BERT_BLOCK + r"output\.LayerNorm\.(?:weight|gamma)", "layers/ffn_norm"),
    (_BERT_BLOCK + r"output\.LayerNorm\.(?:bias|beta)", "layers/ffn_norm_bias"),
    (r"embeddings\.position_ids", None),
    (r"(?:pooler|cls)\..*", None),
)
"""Table of BERT, also with the names gamma and beta of checkpoints from TensorFlow."""

CLIP = _table(
    r"(?:text_model\.)?",
    (r"embeddings\.token_embedding\.weight", "embedding"),
    (r"embeddings\.position_embedding\.weight", "position"),
    (_CLIP_BLOCK + r"layer_norm1\.weight", "layers/attention_norm"),
    (_CLIP_BLOCK + r"layer_norm1\.bias", "layers/attention_norm_bias"),
    (_CLIP_BLOCK + r"self_attn\.q_proj\.weight", "layers/q", _LINEAR),
    (_CLIP_BLOCK + r"self_attn\.q_proj\.bias", "layers/q_bias"),
    (_CLIP_BLOCK + r"self_attn\.k_proj\.weight", "layers/k", _LINEAR),
    (_CLIP_BLOCK + r"self_attn\.k_proj\.bias", "layers/k_bias"),
    (_CLIP_BLOCK + r"self_attn\.v_proj\.weight", "layers/v", _LINEAR),
    (_CLIP_BLOCK + r"self_attn\.v_proj\.bias", "layers/v_bias"),
    (_CLIP_BLOCK + r"self_attn\.out_proj\.weight", "layers/o", _LINEAR),
    (_CLIP_BLOCK + r"self_attn\.out_proj\.bias", "layers/o_bias"),
    (_CLIP_BLOCK + r"layer_norm2\.weight", "layers/ffn_norm"),
    (_CLIP_BLOCK + r"layer_norm2\.bias", "layers/ffn_norm_bias"),
    (_CLIP_BLOCK + r"mlp\.fc1\.weight", "layers/up", _LINEAR),
    (_CLIP_BLOCK + r"mlp\.fc1\.bias", "layers/up_bias"),
    (_CLIP_BLOCK + r"mlp\.fc2\.weight", "layers/down", _LINEAR),
    (_CLIP_BLOCK + r"mlp\.fc2\.bias", "layers/down_bias"),
    (r"final_layer_norm\.weight", "final_norm"),
    (r"final_layer_norm\.bias", "final_norm_bias"),
    (r"embeddings\.position_ids", None),
    (r"(?:head|text_projection|vision_model|visual_projection)\..*", None),
    (r"logit_(?:scale|bias)", None),
)
"""Table of the text encoders of CLIP and SigLIP, alone or beside the one of images."""

GgufTable = tuple[tuple[re.Pattern[str], str | None], ...]


def _gguf_table(*rules: tuple[str, str | None]) -> GgufTable:
    return tuple((re.compile(pattern), name) for pattern, name in rules)


_GGUF_BLOCK, _HF_BLOCK = r"blk\.(\d+)\.", r"model.layers.\1."
_GGUF_TRUNK = (
    (r"token_embd\.weight", "model.embed_tokens.weight"),
    (_GGUF_BLOCK + r"attn_norm\.weight", _HF_BLOCK + "input_layernorm.weight"),
    (_GGUF_BLOCK + r"attn_output\.weight", _HF_BLOCK + "self_attn.o_proj.weight"),
    (_GGUF_BLOCK + r"ffn_down\.weight", _HF_BLOCK + "mlp.down_proj.weight"),
    (r"output_norm\.weight", "model.norm.weight"),
    (r"output\.weight", "lm_head.weight"),
)
_GGUF_UNFUSED = (
    (_GGUF_BLOCK + r"attn_([qkv])\.(weight|bias)", _HF_BLOCK + r"self_attn.\2_proj.\3"),
    (_GGUF_BLOCK + r"attn_([qk])_norm\.weight", _HF_BLOCK + r"self_attn.\2_norm.weight"),
    (_GGUF_BLOCK + r"ffn_(gate|up)\.weight", _HF_BLOCK + r"mlp.\2_proj.weight"),
)
_GGUF_FFN_NORM = (_GGUF_BLOCK + r"ffn_norm\.weight", _HF_BLOCK + "post_attention_layernorm.weight")

GGUF_DECODER = _gguf_table(*_GGUF_TRUNK, *_GGUF_UNFUSED, _GGUF_FFN_NORM)
"""Hugging Face names of llama.cpp's tensors of LLaMA, Qwen2 and Qwen3."""

GGUF_PHI3 = _gguf_table(
    *_GGUF_TRUNK,
    _GGUF_FFN_NORM,
    (_GGUF_BLOCK + r"attn_qkv\.weight", _HF_BLOCK + "self_attn.qkv_proj.weight"),
    (_GGUF_BLOCK + r"ffn_up\.weight", _HF_BLOCK + "mlp.gate_up_proj.weight"),
)

GGUF_GEMMA3 = _gguf_table(
    *_GGUF_TRUNK,
    *_GGUF_UNFUSED,
    (_GGUF_BLOCK + r"post_attention_norm\.weight", _HF_BLOCK + "post_attention_layernorm.weight"),
    (_GGUF_BLOCK + r"ffn_norm\.weight", _HF_BLOCK + "pre_feedforward_layernorm.weight"),
    (_GGUF_BLOCK + r"post_ffw_norm\.weight", _HF_BLOCK + "post_feedforward_layernorm.weight"),
)

_GGUF_T5, _HF_T5 = r"enc\.blk\.(\d+)\.", r"encoder.block.\1.layer."
_HF_T5_BIAS = "0.SelfAttention.relative_attention_bias.weight"
_GGUF_T5_ENCODER = (
    (r"token_embd\.weight", "shared.weight"),
    (_GGUF_T5 + r"attn_norm\.weight", _HF_T5 + "0.layer_norm.weight"),
    (_GGUF_T5 + r"attn_([qkvo])\.weight", _HF_T5 + r"0.SelfAttention.\2.weight"),
    (_GGUF_T5 + r"attn_rel_b\.weight", _HF_T5 + _HF_T5_BIAS),
    (_GGUF_T5 + r"ffn_norm\.weight", _HF_T5 + "1.layer_norm.weight"),
    (_GGUF_T5 + r"ffn_down\.weight", _HF_T5 + "1.DenseReluDense.wo.weight"),
    (r"enc\.output_norm\.weight", "encoder.final_layer_norm.weight"),
    (r"dec\..*", None),
    (r"output\.weight", None),
)
GGUF_T5 = _gguf_table(
    *_GGUF_T5_ENCODER,
    (_GGUF_T5 + r"ffn_up\.weight", _HF_T5 + "1.DenseReluDense.wi.weight"),
)
"""Table of the original T5; None skips its decoder."""

GGUF_GATED_T5 = _gguf_table(
    *_GGUF_T5_ENCODER,
    (_GGUF_T5 + r"ffn_gate\.weight", _HF_T5 + "1.DenseReluDense.wi_0.weight"),
    (_GGUF_T5 + r"ffn_up\.weight", _HF_T5 + "1.DenseReluDense.wi_1.weight"),
)
"""Table of T5 1.1, mT5 and UMT5."""
