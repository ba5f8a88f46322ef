"""Tiny random models as transformers saves them, and the two packaged ones."""

from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers, processors, trainers

from lidit_jax import encoders
from lidit_jax.errors import LiditError

SMALL = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
}
GROUPED = SMALL | {"num_key_value_heads": 2, "max_position_embeddings": 512}
LLAMA31_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

TINY = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED)),
    "llama-3.1": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**GROUPED, rope_parameters=LLAMA31_ROPE)
    ),
    "mistral": lambda: transformers.MistralForCausalLM(
        transformers.MistralConfig(**GROUPED, head_dim=16)
    ),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**GROUPED)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(**GROUPED, head_dim=16)
    ),
    "llava": lambda: transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            text_config=transformers.LlamaConfig(**GROUPED),
            vision_config=transformers.CLIPVisionConfig(
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                image_size=8,
                patch_size=4,
            ),
        )
    ),
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SMALL)),
}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """`tiny_folder("qwen2")`: a folder with a random model whose norms and biases matter."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            torch.manual_seed(0)
            model = TINY[family]()
            for name, parameter in model.named_parameters():
                if "norm" in name.lower() or name.endswith("bias"):
                    parameter.data += 0.3 * torch.randn_like(parameter)
            model.save_pretrained(folder)
            save_tokenizer(folder, bert=family == "bert")
            made[family] = folder
        return made[family]

    return make


def save_tokenizer(folder: Path, *, bert: bool = False) -> None:
    """Byte-level pairs without a begin token, or BERT's layout with [CLS] and [SEP]."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["[CLS]", "[SEP]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([encoders.INSTRUCTION], trainer)
    options = {"eos_token": "[SEP]"}
    if bert:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))
        options = {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)
    fast.save_pretrained(folder)


@pytest.fixture(scope="session")
def packaged():
    """`packaged("smollm2")`: the real encoder, loaded once; skips where pip did not install it."""
    loaded: dict[str, encoders.TextEncoder] = {}

    def load(name: str) -> encoders.TextEncoder:
        if name not in loaded:
            try:
                loaded[name] = encoders.load(name)
            except LiditError as error:
                pytest.skip(str(error))
        return loaded[name]

    return load
