"""Families of text encoders that are not language models: T5, BERT, CLIP and SigLIP."""

from __future__ import annotations

from lidit_jax.encoders.bert import Bert
from lidit_jax.encoders.clip import ACTIVATIONS, Clip
from lidit_jax.encoders.family import OFF, Family, sizes
from lidit_jax.encoders.t5 import T5
from lidit_jax.weights import tables

_T5_SWITCHES = {
    "feed_forward_proj": "relu",
    "layer_norm_epsilon": 1e-6,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
}
_GATED_T5_SWITCHES = _T5_SWITCHES | {"feed_forward_proj": "gated-gelu"}

_T5_ONLY = {"feed_forward_proj": ("relu", "gated-gelu")}
_BERT_ONLY = {
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
    "is_decoder": OFF,
    "add_cross_attention": OFF,
}
_CLIP_ONLY = {"hidden_act": tuple(ACTIVATIONS)}
_SIGLIP = Family(
    Clip.siglip,
    tables.CLIP,
    {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
    sizes(32000, 768, 3072, 12, 12, None) | {"max_position_embeddings": 64},
    _CLIP_ONLY,
)

CONTRASTIVE = {
    "clip_text_model": Family(
        Clip.clip,
        tables.CLIP,
        {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
        sizes(49408, 512, 2048, 12, 8, None) | {"max_position_embeddings": 77},
        _CLIP_ONLY,
    ),
    "siglip_text_model": _SIGLIP,
    "siglip2_text_model": _SIGLIP,
}
"""Families trained to match images with texts."""

ENCODERS = {
    "t5": Family(T5.from_huggingface, tables.T5, _T5_SWITCHES, only=_T5_ONLY),
    "mt5": Family(T5.from_huggingface, tables.T5, _GATED_T5_SWITCHES, only=_T5_ONLY),
    "umt5": Family(T5.from_huggingface, tables.UMT5, _GATED_T5_SWITCHES, only=_T5_ONLY),
    "bert": Family(Bert.from_huggingface, tables.BERT, only=_BERT_ONLY),
    **CONTRASTIVE,
}
"""Families by the `model_type` of transformers."""
