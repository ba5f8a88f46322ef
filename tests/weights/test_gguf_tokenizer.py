"""What a GGUF file does not say of its tokenizer: the family's normalizer, and added tokens."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from tokenizers import pre_tokenizers

from lidit_jax.encoders.tokenizer import PromptTokenizer
from lidit_jax.encoders.tokenizer_check import load_tokenizer
from lidit_jax.weights.gguf import convert

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
END, TOOL = "<|im_end|>", "<tool_call>"
MERGES = ["r e", "re d", "Ã ©"]
"""The last two bytes are a composed é."""


def write(path: Path, pre: str, add_bos: bool | None = None) -> Path:
    """A file with a tokenizer, and as much of a model as its conversion asks for."""
    merged = [merge.replace(" ", "") for merge in MERGES]
    tokens = [END, TOOL, "<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *merged]
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(8)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL, USER_DEFINED, CONTROL] + [NORMAL] * (len(tokens) - 3))
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(0)
    if add_bos is not None:
        writer.add_add_bos_token(add_bos)
    writer.add_tensor("token_embd.weight", np.zeros((len(tokens), 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LIDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_qwen2_composes_accents_and_keeps_added_tokens_whole(tmp_path, cache):
    folder = convert(write(tmp_path / "tiny.gguf", "qwen2"))
    tokenizer = load_tokenizer(folder)
    composed, decomposed, tool = tokenizer.encode(["é", "e\u0301", f"red{TOOL}red"])
    assert composed == decomposed
    assert [tokenizer.backend.id_to_token(token) for token in composed] == ["Ã©"]
    assert [tokenizer.backend.id_to_token(token) for token in tool] == ["red", TOOL, "red"]
    # Transformers' class for the family, on the same vocabulary, gives the same tokens.
    (verdict,) = (cache / "tokenizers").glob("*/verdict.json")
    assert json.loads(verdict.read_text())["kind"] == "same"


@pytest.mark.parametrize("pre", ["smollm", "llama-bpe"])
def test_other_families_keep_accents_as_they_are(tmp_path, pre):
    tokenizer = PromptTokenizer.from_folder(convert(write(tmp_path / "tiny.gguf", pre)))
    composed, decomposed, tool = tokenizer.encode(["é", "e\u0301", TOOL])
    assert composed != decomposed
    assert len(tool) == 1


def test_a_begin_token_without_a_name_is_none(tmp_path):
    """`add_bos_token` and no `bos_token`: transformers adds none either."""
    folder = convert(write(tmp_path / "tiny.gguf", "qwen2", add_bos=True))
    assert json.loads((folder / "tokenizer_config.json").read_text())["add_bos_token"] is True
    assert load_tokenizer(folder).begin == ()
