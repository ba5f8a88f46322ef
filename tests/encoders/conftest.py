"""Tiny random models as transformers saves them, and the two packaged ones."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers, processors, trainers

from lidit_jax import encoders
from lidit_jax.encoders import TokenBatch
from lidit_jax.errors import LiditError
from tests.encoders.tiny_models import FAMILIES, randomize

PROMPTS = [
    "a red circle",
    "",
    "three green stars to the left of a large purple heart, on a wooden table; 12 of them are blue",
    "一个红色的圆形在蓝色正方形的左边",
]


class Tiny(NamedTuple):
    """A tiny encoder and its states for `PROMPTS`, padded on the right, then on the left."""

    model: transformers.PreTrainedModel
    encoder: encoders.TextEncoder
    tokens: TokenBatch
    states: np.ndarray
    """[L+1, 2B, S, D], float32."""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """`tiny_model("qwen2")`: a random model and the folder that transformers saved it to."""
    made: dict[str, tuple[Path, transformers.PreTrainedModel]] = {}

    def make(family: str) -> tuple[Path, transformers.PreTrainedModel]:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            made[family] = folder, save_tiny(family, folder)
        return made[family]

    return make


@pytest.fixture(scope="session")
def tiny_folder(tiny_model):
    """`tiny_folder("qwen2")`: the folder of a random model."""
    return lambda family: tiny_model(family)[0]


@pytest.fixture(scope="session")
def tiny(tiny_model):
    """`tiny("qwen2")`: the encoder read from that folder, and its hidden states; computed once."""
    made: dict[str, Tiny] = {}

    def make(family: str) -> Tiny:
        if family not in made:
            folder, model = tiny_model(family)
            encoder = encoders.load(str(folder))
            tokens = padded_on_both_sides(encoder)
            states = jax.jit(encoder.hidden_states)(encoder.params, tokens.ids, tokens.mask)
            made[family] = Tiny(model, encoder, tokens, np.asarray(states))
        return made[family]

    return make


def save_tiny(family: str, folder: Path) -> transformers.PreTrainedModel:
    """A random model, saved with a tokenizer."""
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    randomize(model)
    model.save_pretrained(folder)
    save_tokenizer(folder, bert=family in ("bert", "clip", "siglip"))
    return model


def padded_on_both_sides(encoder: encoders.TextEncoder) -> TokenBatch:
    """`PROMPTS` twice in one batch; every row has some padding."""
    longest = encoder.tokenize(PROMPTS, max_prompt_tokens=40).ids.shape[1]
    batches = [
        encoder.tokenize(PROMPTS, max_prompt_tokens=40, length=longest + 3, padding=side)
        for side in ("right", "left")
    ]
    ids, mask = (np.concatenate([getattr(b, name) for b in batches]) for name in ("ids", "mask"))
    return TokenBatch(ids, mask, batches[0].prefix_length, truncated=0)


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
