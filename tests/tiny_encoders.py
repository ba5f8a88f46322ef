"""Tiny random text encoders as Hugging Face folders: written in milliseconds, without PyTorch."""

import json
from pathlib import Path

import numpy as np
import safetensors.numpy
import tokenizers
from tokenizers import models, pre_tokenizers

WIDTH = 16
_FFN, _LAYERS, _POSITIONS, _END = 32, 4, 256, "<end>"

_CONFIGS = {
    "llama": {"rms_norm_eps": 1e-6, "rope_theta": 10_000.0},
    "bert": {"layer_norm_eps": 1e-6, "max_position_embeddings": _POSITIONS, "type_vocab_size": 1},
}
# Names inside a block, by what they are.
_BLOCKS = {
    "llama": {
        "square": [f"self_attn.{name}_proj.weight" for name in "qkvo"],
        "up": ["mlp.gate_proj.weight", "mlp.up_proj.weight"],
        "down": ["mlp.down_proj.weight"],
        "norm": ["input_layernorm.weight", "post_attention_layernorm.weight"],
    },
    "bert": {
        "square": [f"attention.self.{name}.weight" for name in ("query", "key", "value")]
        + ["attention.output.dense.weight"],
        "up": ["intermediate.dense.weight"],
        "down": ["output.dense.weight"],
        "norm": ["attention.output.LayerNorm.weight", "output.LayerNorm.weight"],
        "bias": [f"attention.self.{name}.bias" for name in ("query", "key", "value")]
        + [f"{name}.bias" for name in ("attention.output.dense", "output.dense")]
        + [f"{name}.LayerNorm.bias" for name in ("attention.output", "output")],
        "wide bias": ["intermediate.dense.bias"],
    },
}
_SHAPES = {
    "square": (WIDTH, WIDTH),
    "up": (_FFN, WIDTH),
    "down": (WIDTH, _FFN),
    "norm": (WIDTH,),
    "bias": (WIDTH,),
    "wide bias": (_FFN,),
}


def save_encoder(folder: Path, family: str, seed: int = 0) -> Path:
    """Writes a "llama" (causal) or "bert" (bidirectional) of 4 blocks that reads single bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _byte_tokenizer()
    config = {
        "model_type": family,
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": WIDTH,
        "intermediate_size": _FFN,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": 2,
        **_CONFIGS[family],
    }
    rng = np.random.default_rng(seed)

    def tensor(*shape: int) -> np.ndarray:
        return rng.normal(size=shape, scale=shape[-1] ** -0.5).astype(np.float32)

    tensors = {}
    layer = "model.layers" if family == "llama" else "encoder.layer"
    for kind, names in _BLOCKS[family].items():
        for name in names:
            for i in range(_LAYERS):
                offset = np.float32(kind == "norm")
                tensors[f"{layer}.{i}.{name}"] = offset + tensor(*_SHAPES[kind])
    words = tensor(config["vocab_size"], WIDTH)
    if family == "llama":
        tensors |= {"model.embed_tokens.weight": words, "model.norm.weight": 1 + tensor(WIDTH)}
    else:
        tensors |= {
            "embeddings.word_embeddings.weight": words,
            "embeddings.position_embeddings.weight": tensor(_POSITIONS, WIDTH),
            "embeddings.token_type_embeddings.weight": tensor(1, WIDTH),
            "embeddings.LayerNorm.weight": 1 + tensor(WIDTH),
            "embeddings.LayerNorm.bias": tensor(WIDTH),
        }
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.save(str(folder / "tokenizer.json"))
    # Without a class, transformers takes that of the family, which would cut text otherwise.
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": _END}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _byte_tokenizer() -> tokenizers.Tokenizer:
    alphabet = [_END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {token: i for i, token in enumerate(alphabet)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([_END])
    return tokenizer
