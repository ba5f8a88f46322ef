"""CLIP's tokenizer from the two files that Stable Diffusion's pipelines carry."""

import json

import pytest
import transformers
from tokenizers.pre_tokenizers import ByteLevel

from lidit_jax.encoders.locations import locate_tokenizer, tokenizer_digest
from lidit_jax.encoders.tokenizer import PromptTokenizer
from lidit_jax.encoders.tokenizer_probes import PROBE_PROMPTS
from lidit_jax.errors import LiditError
from lidit_jax.weights import clip_tokenizer

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
MERGES = [("r", "e"), ("re", "d</w>"), ("c", "a"), ("ca", "t</w>"), ("Ã", "©</w>"), ("'", "s</w>")]


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """A pipeline's text encoder, with a tokenizer of all bytes, alone and as the end of a word."""
    monkeypatch.setenv("LIDIT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "pipeline" / "tokenizer"
    folder.mkdir(parents=True)
    (tmp_path / "pipeline" / "text_encoder").mkdir()
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{one}</w>" for one in alphabet), *map("".join, MERGES), BEGIN, END]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    lines = ["#version: 0.2", *map(" ".join, MERGES)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    settings = {"bos_token": BEGIN, "eos_token": END, "unk_token": END}
    settings |= {"pad_token": END, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path / "pipeline"


def test_tokens_are_those_of_transformers(pipeline):
    theirs = transformers.CLIPTokenizer.from_pretrained(pipeline / "tokenizer")
    folder = locate_tokenizer(pipeline / "text_encoder")
    ours = PromptTokenizer.from_folder(folder)
    prompts = [*PROBE_PROMPTS, "A RED cat's café", f"red {END} cat", ""]
    expected = [theirs(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    assert ours.encode(prompts) == expected
    begin, *_, end = theirs("red cat")["input_ids"]
    assert (ours.begin, ours.end, ours.pad) == ((begin,), end, theirs.pad_token_id)
    assert locate_tokenizer(pipeline / "text_encoder") == folder, "it is built once"


def test_the_digest_is_that_of_both_files(pipeline):
    before = tokenizer_digest(pipeline / "text_encoder")
    merges = pipeline / "tokenizer" / "merges.txt"
    merges.write_text(merges.read_text().replace("c a\n", ""))
    assert tokenizer_digest(pipeline / "text_encoder") != before


def test_files_of_another_model_or_damaged_ones_are_named(pipeline):
    folder = pipeline / "tokenizer"
    merges = folder / "merges.txt"
    merges.write_text("#version: 0.2\nr e d\n")
    with pytest.raises(LiditError, match=r"merges.txt has a line of 3 tokens, not 2"):
        clip_tokenizer.convert(folder)
    merges.write_text("r x\n")
    with pytest.raises(LiditError, match=r"vocab.json and merges.txt do not belong together"):
        clip_tokenizer.convert(folder)
    (folder / "vocab.json").write_text("{}")
    with pytest.raises(LiditError, match=r"vocab.json lacks '<\|startoftext\|>'"):
        clip_tokenizer.convert(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    with pytest.raises(LiditError, match=r"the vocabulary of a GPT2Tokenizer, not of CLIP"):
        clip_tokenizer.convert(folder)
    assert not [*(pipeline.parent / "cache").glob("tokenizers/clip-*")]
