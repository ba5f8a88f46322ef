"""A `tokenizer.json` from the SentencePiece model of a T5, as transformers builds it."""

import json
import struct
from pathlib import Path

import pytest
import transformers
from transformers.utils import sentencepiece_model_pb2_new

from lidit_jax.encoders.tokenizer import PromptTokenizer
from lidit_jax.encoders.tokenizer_probes import PROBE_PROMPTS
from lidit_jax.errors import LiditError
from lidit_jax.weights import sentencepiece_tokenizer

PIECES = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
PIECES += [(letter, -5.0 - i / 8) for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz.,é圆1")]
PIECES += [("▁a", -2.5), ("re", -4.0), ("▁red", -3.0), ("circle", -3.5), ("cir", -4.0)]
UNIGRAM, BPE = 1, 2
CONTROL, UNKNOWN, NORMAL = 3, 2, 1


def charsmap(byte: str, text: str) -> bytes:
    """SentencePiece's normalization with one rule, from a byte to a text.

    A double array as darts-clone stores it: the root, one node with a leaf, and its value."""
    root, label = 256, ord(byte)
    node = root ^ label
    units = [0] * 512
    units[0] = root << 10
    units[node] = 1 << 10 | 1 << 8 | label
    units[node ^ 1] = 1 << 31  # a leaf, whose value is the start of the text below
    trie = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(trie)) + trie + text.encode() + b"\0"


CHARSMAP = charsmap("A", "a")


def save(folder: Path, kind: int = UNIGRAM, **settings) -> Path:
    model = sentencepiece_model_pb2_new.ModelProto()
    kinds = [CONTROL, CONTROL, UNKNOWN] + [NORMAL] * (len(PIECES) - 3)
    for (piece, score), own in zip(PIECES, kinds, strict=True):
        model.pieces.add(piece=piece, score=score, type=own)
    model.trainer_spec.model_type = kind
    model.trainer_spec.unk_id = 2
    model.normalizer_spec.precompiled_charsmap = CHARSMAP
    folder.mkdir(parents=True)
    (folder / "spiece.model").write_bytes(model.SerializeToString())
    settings = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "extra_ids": 5} | settings
    settings |= {"pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIDIT_CACHE", str(tmp_path / "cache"))


def test_texts_become_the_tokens_of_transformers(tmp_path):
    folder = save(tmp_path / "tokenizer")
    made = sentencepiece_tokenizer.convert(folder)
    ours = PromptTokenizer.from_folder(made)
    blanks = [(f"<extra_id_{i}>", 0.0) for i in (4, 3, 2, 1, 0)]
    theirs = transformers.T5Tokenizer(
        vocab=PIECES + blanks, _spm_precompiled_charsmap=CHARSMAP, extra_ids=5
    )
    prompts = [*PROBE_PROMPTS, "A RED circle", "red<extra_id_4> a</s>", "a <unk> <pad>"]
    expected = [theirs(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    assert ours.encode(prompts) == expected
    assert ours.encode(["A"]) == ours.encode(["a"]), "the model's own normalization"
    assert (ours.begin, ours.end, ours.pad) == ((), 1, 0)
    # As transformers reads the made file, too.
    read = transformers.AutoTokenizer.from_pretrained(made)
    assert [read(text, add_special_tokens=False)["input_ids"] for text in prompts] == expected
    assert sentencepiece_tokenizer.convert(folder) == made, "made once"


@pytest.mark.parametrize(
    ("kind", "settings"), [(BPE, {}), (UNIGRAM, {"tokenizer_class": "LlamaTokenizer"})]
)
def test_another_kind_is_refused_with_the_remedy(tmp_path, kind, settings):
    folder = save(tmp_path / "tokenizer", kind, **settings)
    with pytest.raises(LiditError, match=r"is no T5 tokenizer \(.*from_pretrained\(.*save_pretr"):
        sentencepiece_tokenizer.convert(folder)


def test_what_is_beside_the_model_must_fit_it(tmp_path):
    folder = save(tmp_path / "tokenizer")
    size = len(PIECES) + 5
    (folder / "added_tokens.json").write_text(json.dumps({"<extra_id_0>": size - 1}))
    assert sentencepiece_tokenizer.convert(folder).is_dir()
    (folder / "added_tokens.json").write_text(json.dumps({"<new>": size}))
    with pytest.raises(LiditError, match=rf"gives '<new>' the id {size}, which its SentencePiece"):
        sentencepiece_tokenizer.convert(folder)
    (folder / "spiece.model").write_bytes(b"\x0a\xff")
    with pytest.raises(LiditError, match=r"spiece.model is damaged \(.*: download it again"):
        sentencepiece_tokenizer.convert(folder)
