"""Transformers reads a tokenizer once; from then on the light reading gives the same tokens."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from lidit_jax.encoders import tokenizer_check
from lidit_jax.encoders.text_encoder import TextEncoder
from lidit_jax.encoders.tokenizer import PromptTokenizer
from lidit_jax.encoders.tokenizer_check import load_tokenizer
from lidit_jax.encoders.tokenizer_probes import PROBE_PROMPTS
from lidit_jax.errors import LiditError

SPLIT = transformers.models.qwen2.tokenization_qwen2.PRETOKENIZE_REGEX
END, TOOL = "<|im_end|>", "<tool_call>"
TEXTS = ["a café with naïve Ångström", "it's 12 blue squares", "red red red circle", TOOL]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LIDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokenizers"


def qwen_like(*, composed: bool, added: bool) -> Tokenizer:
    """Byte-level pairs as Qwen2 cuts them, with or without what the family knows beside them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokens = ["<|endoftext|>", END, TOOL]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=tokens, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    content = json.loads(tokenizer.to_str())
    for token in content["added_tokens"]:
        token["special"] = token["content"] != TOOL
    if not added:
        content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != TOOL]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    if composed:
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def save(folder: Path, tokenizer: Tokenizer, family: str = "qwen2", **settings) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": END} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = {"model_type": family, "vocab_size": tokenizer.get_vocab_size()}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def verdict(cache: Path) -> dict:
    (file,) = cache.glob("*/verdict.json")
    return json.loads(file.read_text())


def test_an_agreeing_tokenizer_is_read_from_its_own_folder(tmp_path, cache, capsys):
    folder = save(tmp_path / "model", qwen_like(composed=True, added=True))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.folder == folder
    assert verdict(cache)["kind"] == "same"
    assert capsys.readouterr().err == ""
    (kept,) = cache.iterdir()
    assert [path.name for path in kept.iterdir()] == ["verdict.json"]


@pytest.mark.parametrize(("composed", "added"), [(False, True), (True, False), (False, False)])
def test_what_the_family_knows_is_taken_over(tmp_path, cache, composed, added):
    """A normalizer that composes letters, and an added token that only the settings name."""
    tokenizer = qwen_like(composed=composed, added=added)
    index = str(tokenizer.token_to_id(TOOL))
    decoder = {index: {"content": TOOL, "special": False, "normalized": False}}
    folder = save(tmp_path / "model", tokenizer, added_tokens_decoder=decoder)
    plain = PromptTokenizer.from_folder(folder)
    composed_text, decomposed_text = "café", "cafe\u0301"
    ours = load_tokenizer(folder)
    assert verdict(cache)["kind"] == "replaced"
    assert ours.encode([composed_text]) == ours.encode([decomposed_text])
    assert ours.encode([TOOL]) == [[tokenizer.token_to_id(TOOL)]]
    if not composed:
        assert plain.encode([composed_text]) != plain.encode([decomposed_text])
    if not added:
        assert len(plain.encode([TOOL])[0]) > 1
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    expected = [reference(text, add_special_tokens=False)["input_ids"] for text in PROBE_PROMPTS]
    assert ours.encode(PROBE_PROMPTS) == expected
    assert (ours.begin, ours.end) == (plain.begin, plain.end)


def test_what_stands_around_a_prompt_stays(tmp_path, cache):
    """Transformers forgets `add_bos_token` beside a tokenizer.json; trained models have not."""
    tokenizer = qwen_like(composed=False, added=True)
    settings = {"bos_token": "<|endoftext|>", "add_bos_token": True, "pad_token": TOOL}
    folder = save(tmp_path / "model", tokenizer, **settings)
    ours = load_tokenizer(folder)
    assert verdict(cache)["kind"] == "replaced"
    around = [*ours.begin, ours.end, ours.pad]
    assert [ours.backend.id_to_token(token) for token in around] == ["<|endoftext|>", END, TOOL]


def test_the_second_reading_asks_no_one(tmp_path, monkeypatch):
    folder = save(tmp_path / "model", qwen_like(composed=False, added=True))
    first = load_tokenizer(folder)
    monkeypatch.setattr(tokenizer_check, "_compare", None)
    second = load_tokenizer(folder)
    assert second.encode(PROBE_PROMPTS) == first.encode(PROBE_PROMPTS)
    # The content decides, not its place; and another content is another tokenizer.
    copied = shutil.copytree(folder, tmp_path / "copied")
    assert load_tokenizer(copied).folder == first.folder
    save(copied, qwen_like(composed=True, added=True))
    with pytest.raises(TypeError):
        load_tokenizer(copied)


def test_later_programs_do_not_import_transformers(tmp_path):
    """The start of `lidit sample` waits for nothing that it does not need."""
    folder = save(tmp_path / "model", qwen_like(composed=False, added=True))
    program = (
        "import sys, pathlib\n"
        "from lidit_jax.encoders.tokenizer_check import load_tokenizer\n"
        "print(load_tokenizer(pathlib.Path(sys.argv[1])).encode(['cafe\u0301']))\n"
        "print('transformers' in sys.modules)\n"
    )
    shown = [
        subprocess.run(
            [sys.executable, "-c", program, str(folder)], check=True, capture_output=True, text=True
        ).stdout.splitlines()
        for _ in range(2)
    ]
    assert [imported for _, imported in shown] == ["True", "False"]
    assert shown[0][0] == shown[1][0]


def test_a_tokenizer_that_transformers_cannot_read_is_used_as_it_stands(
    tmp_path, cache, capsys, monkeypatch
):
    tokenizer = qwen_like(composed=False, added=True)
    # Code of its own, which is never run.
    settings = {"auto_map": {"AutoTokenizer": [None, "mine.MyTokenizer"]}}
    folder = save(tmp_path / "model", tokenizer, "mine", tokenizer_class="Mine", **settings)
    assert load_tokenizer(folder).folder == folder
    line = capsys.readouterr().err
    assert line.startswith(f"{folder / 'tokenizer.json'} is used unchanged, without transf")
    assert line.count("\n") == 1
    assert verdict(cache)["kind"] == "unread"
    load_tokenizer(folder)
    assert capsys.readouterr().err == "", "said once"
    monkeypatch.setattr(tokenizer_check, "_version", lambda: "99.0")
    load_tokenizer(folder)
    assert capsys.readouterr().err == line, "another version may be able to read it"
    assert verdict(cache)["transformers"] == "99.0"


def test_a_reading_as_another_kind_of_tokenizer_is_not_believed(tmp_path, capsys):
    """BERT's class reads any file as pieces of words."""
    tokenizer = qwen_like(composed=True, added=True)
    tokenizer.add_special_tokens([AddedToken("[UNK]", special=True)])
    folder = save(tmp_path / "model", tokenizer, "bert", tokenizer_class="BertTokenizer")
    assert load_tokenizer(folder).folder == folder
    assert "it takes a BPE tokenizer for WordPiece" in capsys.readouterr().err


class InPython:
    """A tokenizer of transformers without a file of the `tokenizers` library, as SigLIP's."""

    def __init__(self, read: PromptTokenizer, *, lower: bool):
        self.read, self.lower, self.added_tokens_decoder = read, lower, {}

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        assert not add_special_tokens
        return {"input_ids": self.read.encode([text.lower() if self.lower else text])[0]}


@pytest.mark.parametrize("lower", [False, True])
def test_a_tokenizer_in_python_is_compared_and_differences_are_said(
    tmp_path, cache, capsys, monkeypatch, lower
):
    folder = save(tmp_path / "model", qwen_like(composed=True, added=True))
    theirs = InPython(PromptTokenizer.from_folder(folder), lower=lower)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: theirs)
    assert load_tokenizer(folder).folder == folder
    assert verdict(cache)["kind"] == ("unread" if lower else "same")
    said = "AutoTokenizer: its InPython gives other tokens, first for "
    assert (said in capsys.readouterr().err) == lower


def test_tokens_that_the_model_does_not_have_are_not_believed(tmp_path, capsys):
    tokenizer = qwen_like(composed=True, added=True)
    size = tokenizer.get_vocab_size()
    new = {str(size): {"content": "<think>", "special": False}}
    folder = save(tmp_path / "model", tokenizer, added_tokens_decoder=new)
    assert load_tokenizer(folder).folder == folder
    assert f"it gives token {size}, and the model has {size}" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_stops_only_what_must_be_kept(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIDIT_CACHE", str(tmp_path / "file"))
    folder = save(tmp_path / "same", qwen_like(composed=True, added=True))
    assert load_tokenizer(folder).folder == folder
    folder = save(tmp_path / "other", qwen_like(composed=False, added=True))
    with pytest.raises(LiditError, match=r"cannot be kept in .*: set LIDIT_CACHE to a folder that"):
        load_tokenizer(folder)


def test_a_damaged_verdict_is_found_again(tmp_path, cache):
    folder = save(tmp_path / "model", qwen_like(composed=False, added=True))
    tokenizer = load_tokenizer(folder)
    (tokenizer.folder / "verdict.json").write_text("{")
    assert load_tokenizer(folder).folder == tokenizer.folder
    assert verdict(cache)["kind"] == "replaced"
    assert [path.name for path in cache.iterdir()] == [tokenizer.folder.name]


@pytest.mark.usefixtures("unchecked_types")  # it needs no model
@pytest.mark.parametrize(("composed", "differs"), [(True, False), (False, True)])
def test_prepared_features_are_told_apart_where_tokens_changed(tmp_path, composed, differs):
    """The fingerprint stays that of the files: a checkpoint still knows its encoder."""
    folder = save(tmp_path / "model", qwen_like(composed=composed, added=True))
    (folder / "model.safetensors").write_bytes(b"")
    embedding = {"embedding": np.zeros(1, np.float32)}
    encoder = TextEncoder("mine", None, embedding, load_tokenizer(folder), folder)
    file = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert file.normalizer is None or not differs
    assert bool(encoder.reading) == differs
    before = TextEncoder("mine", None, embedding, PromptTokenizer.from_folder(folder), folder)
    assert encoder.fingerprint == before.fingerprint
