"""What a GGUF file does not say of its tokenizer: the family's normalizer, and added tokens."""

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers.tokenization_utils_base import generate_merges

from lidit_jax.encoders.tokenizer import PromptTokenizer
from lidit_jax.encoders.tokenizer_check import load_tokenizer
from lidit_jax.encoders.tokenizer_probes import PROBE_PROMPTS
from lidit_jax.errors import LiditError
from lidit_jax.weights.gguf import convert

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
END, TOOL = "<|im_end|>", "<tool_call>"
MERGES = ["r e", "re d", "Ã ©"]
"""The last two bytes are a composed é."""


def write(path: Path, pre: str, add_bos: bool | None = None) -> Path:
    """A file with byte-level pairs."""
    merged = [merge.replace(" ", "") for merge in MERGES]
    tokens = [END, TOOL, "<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *merged]

    def tokenizer(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(tokens)
        writer.add_token_types([CONTROL, USER_DEFINED, CONTROL] + [NORMAL] * (len(tokens) - 3))
        writer.add_token_merges(MERGES)
        writer.add_eos_token_id(0)
        if add_bos is not None:
            writer.add_add_bos_token(add_bos)

    return _write_model(path, "qwen2", len(tokens), tokenizer)


def write_pieces(
    path: Path, pieces: list[tuple[str, int]], more: Callable[[gguf.GGUFWriter], None]
) -> Path:
    """A Phi-3 with pieces of SentencePiece; `more` adds to the metadata."""

    def tokenizer(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([token for token, _ in pieces])
        writer.add_token_types([kind for _, kind in pieces])
        writer.add_eos_token_id(2)
        more(writer)

    return _write_model(path, "phi3", len(pieces), tokenizer)


def _write_model(
    path: Path, family: str, size: int, tokenizer: Callable[[gguf.GGUFWriter], None]
) -> Path:
    """A file with a tokenizer, and as much of a model as its conversion asks for."""
    writer = gguf.GGUFWriter(path, family)
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(8)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    tokenizer(writer)
    writer.add_tensor("token_embd.weight", np.zeros((size, 8), np.float32))
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


PHI3 = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL), ("<|user|>", USER_DEFINED)]
PHI3 += [(f"<0x{byte:02X}>", BYTE) for byte in range(256)]
PHI3 += [(piece, NORMAL) for piece in ("▁", "ed", "re", "red", "▁r", "▁red", "ci", *"abcdeirlé圆")]


def test_phi_3_puts_a_space_before_a_text(tmp_path, cache):
    """As a tokenizer of the same pieces that is made directly."""
    tokens = [token for token, _ in PHI3]
    scores = [-float(i % 7 + 1) - i / 1000 for i in range(len(tokens))]

    def pieces(writer):
        writer.add_token_scores(scores)
        writer.add_unk_token_id(0)
        writer.add_bos_token_id(1)
        writer.add_add_bos_token(False)

    file = write_pieces(tmp_path / "tiny.gguf", PHI3, pieces)
    ours = load_tokenizer(convert(file))
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = generate_merges(vocabulary, dict(zip(tokens, scores, strict=True)))
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    theirs = Tokenizer(model)
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    theirs.normalizer = normalizers.Sequence(steps)
    theirs.add_special_tokens(["<unk>", "<s>", "</s>"])
    theirs.add_tokens([AddedToken("<|user|>", normalized=False)])
    prompts = [*PROBE_PROMPTS, "<|user|> a red circle", "  red"]
    expected = [theirs.encode(prompt, add_special_tokens=False).ids for prompt in prompts]
    assert ours.encode(prompts) == expected
    assert [ours.backend.id_to_token(token) for token in ours.encode(["red"])[0]] == ["▁red"]
    assert (ours.begin, ours.end) == ((), 2)
    (verdict,) = (cache / "tokenizers").glob("*/verdict.json")
    assert json.loads(verdict.read_text())["kind"] == "same"

    def without_prefix(writer):
        pieces(writer)
        writer.add_add_space_prefix(False)

    write_pieces(file, PHI3, without_prefix)
    with pytest.raises(
        LiditError, match=r"add_space_prefix=False is not supported for phi3 \(read"
    ):
        convert(file)
    write_pieces(file, PHI3, lambda writer: None)
    with pytest.raises(LiditError, match=r"lacks 'tokenizer.ggml.scores': download it again"):
        convert(file)


def test_a_begin_token_without_a_name_is_none(tmp_path):
    """`add_bos_token` and no `bos_token`: transformers adds none either."""
    folder = convert(write(tmp_path / "tiny.gguf", "qwen2", add_bos=True))
    assert json.loads((folder / "tokenizer_config.json").read_text())["add_bos_token"] is True
    assert load_tokenizer(folder).begin == ()
