"""Tokens, mask and prefix length, checked by decoding ids and against transformers' tokenizers."""

import numpy as np
import pytest
import tokenizers
import transformers

from lidit_jax import encoders
from lidit_jax.encoders import PromptFormat
from lidit_jax.encoders.tokenizer import PromptTokenizer
from lidit_jax.errors import LiditError
from tests.tiny_encoders import save_encoder

PROMPTS = ["a red circle", "", "it's 12  blue squares, on\na table", "一个红色的圆形", "a 🦜 é"]


@pytest.fixture(scope="module", params=["smollm2", "minilm"])
def encoder(request, packaged):
    return packaged(request.param)


def decode(encoder, ids) -> str:
    return encoder.tokenizer.backend.decode(ids.tolist(), skip_special_tokens=False)


def as_read(encoder, text: str) -> str:
    """What the tokenizer keeps of a text: MiniLM has lower case only."""
    ids = encoder.tokenizer.backend.encode(text, add_special_tokens=False).ids
    return encoder.tokenizer.backend.decode(ids, skip_special_tokens=False)


def test_the_instruction_is_the_paper_s():
    assert encoders.INSTRUCTION == (
        "Describe the image by detailing the color, shape, size, texture, quantity, text, and "
        "spatial relationships of the objects:"
    )
    assert PromptFormat().prefix == encoders.INSTRUCTION + "\n"
    assert PromptFormat("Look:", "You are a painter.").prefix == "You are a painter.\nLook:\n"
    assert PromptFormat("").prefix == ""


def test_ids_are_those_of_transformers(encoder):
    reference = transformers.AutoTokenizer.from_pretrained(encoder.folder)
    for prompt in (*PROMPTS, PromptFormat().prefix):
        row = encoder.tokenize([prompt], PromptFormat(""))
        plain = reference(prompt, add_special_tokens=False)["input_ids"]
        assert row.ids[0, row.prefix_length : -1].tolist() == plain
        if encoder.name == "minilm":
            assert row.ids[0].tolist() == reference(prompt)["input_ids"]
        else:
            assert row.ids[0].tolist() == [*reference(prompt)["input_ids"], reference.eos_token_id]


def test_decoding_gives_begin_token_instruction_prompt_and_end_token(encoder):
    begin, end = {"smollm2": ("", "<|im_end|>"), "minilm": ("[CLS]", "[SEP]")}[encoder.name]
    tokens = encoder.tokenize(PROMPTS)
    assert tokens.truncated == 0
    for prompt, ids, mask in zip(PROMPTS, tokens.ids, tokens.mask, strict=True):
        before, after = ids[mask][: tokens.prefix_length], ids[mask][tokens.prefix_length :]
        assert decode(encoder, before).strip() == (
            f"{begin} {as_read(encoder, PromptFormat().prefix)}".strip()
        )
        assert decode(encoder, after[:-1]) == as_read(encoder, prompt)
        assert decode(encoder, after[-1:]) == end


def test_the_empty_prompt_keeps_one_token_after_the_prefix(encoder):
    for prompt_format in (PromptFormat(), PromptFormat("")):
        tokens = encoder.tokenize([""], prompt_format)
        assert tokens.mask.all()
        assert tokens.ids[:, tokens.prefix_length :].tolist() == [[encoder.tokenizer.end]]


def test_without_instruction_the_prefix_is_the_begin_token(encoder):
    prefix_length = encoder.tokenize(["a"], PromptFormat("")).prefix_length
    assert prefix_length == {"smollm2": 0, "minilm": 1}[encoder.name]


def test_prompts_may_be_turned_into_lower_case_but_not_the_instruction(encoder):
    as_written, lowered = PromptFormat("Draw THIS:"), PromptFormat("Draw THIS:", lowercase=True)
    prompts = ["A Red CIRCLE", "Ein großes Ü"]
    expected = encoder.tokenize([prompt.lower() for prompt in prompts], as_written)
    np.testing.assert_array_equal(encoder.tokenize(prompts, lowered).ids, expected.ids)


def test_the_instruction_has_the_same_tokens_in_every_row(encoder):
    tokens = encoder.tokenize(PROMPTS)
    assert (tokens.ids[:, : tokens.prefix_length] == tokens.ids[0, : tokens.prefix_length]).all()
    assert tokens.ids.dtype == np.int32
    assert tokens.mask.dtype == bool


@pytest.mark.parametrize("padding", ["right", "left"])
def test_padding_fills_the_side_it_is_asked_for(encoder, padding):
    short, long = encoder.tokenize(["a circle", "a red circle"], length=50, padding=padding).mask
    order = 1 if padding == "left" else -1
    assert sorted(short.tolist()) == short.tolist()[::order]
    assert long.sum() == short.sum() + 1
    assert encoder.tokenize(["a circle", "a red circle"]).mask.shape[1] == long.sum()


def test_long_prompts_are_cut_and_counted_or_refused(encoder):
    prompts = ["a red circle", "red " * 300]
    tokens = encoder.tokenize(prompts, max_prompt_tokens=20)
    assert tokens.truncated == 1
    assert tokens.mask.sum(axis=1).tolist() == [tokens.prefix_length + 4, tokens.prefix_length + 21]
    assert tokens.ids[1, tokens.prefix_length + 20] == encoder.tokenizer.end
    length = tokens.prefix_length + 9
    assert encoder.tokenize(prompts, length=length).ids.shape == (2, length)
    limit = r"prompt 2 \('red red .*…'\) has 30\d tokens, the limit is 20: shorten it"
    with pytest.raises(LiditError, match=limit):
        encoder.tokenize(prompts, max_prompt_tokens=20, overflow="error")
    assert encoder.tokenize(["red " * 10], overflow="error").truncated == 0


def test_a_length_without_room_for_the_prompt_is_refused(encoder):
    with pytest.raises(LiditError, match=r"length=10 leaves no room .* 26 tokens, use at least 27"):
        encoder.tokenize(["a"], length=10)


def test_bert_never_outgrows_its_positions(packaged):
    tokens = packaged("minilm").tokenize(["red " * 900], max_prompt_tokens=900)
    assert tokens.ids.shape == (1, 512)
    assert tokens.truncated == 1


@pytest.mark.parametrize(("add_bos_token", "begin"), [(True, ("[CLS]",)), (False, ())])
def test_the_begin_token_follows_the_configuration(tiny_folder, tmp_path, add_bos_token, begin):
    source = tiny_folder("llama") / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(source.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(
        f'{{"bos_token": {{"content": "[CLS]"}}, "eos_token": "[SEP]", '
        f'"add_bos_token": {str(add_bos_token).lower()}}}'
    )
    tokenizer = PromptTokenizer.from_folder(tmp_path)
    backend = tokenizers.Tokenizer.from_file(str(source))
    assert tokenizer.begin == tuple(backend.token_to_id(token) for token in begin)
    assert tokenizer.end == backend.token_to_id("[SEP]")


def test_damaged_and_incomplete_tokenizers_are_named(tiny_folder, tmp_path):
    with pytest.raises(LiditError, match=r"tokenizer.json is missing: save the tokenizer"):
        PromptTokenizer.from_folder(tmp_path)
    good = (tiny_folder("llama") / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(good[:100])
    with pytest.raises(LiditError, match=r"tokenizer.json is damaged"):
        PromptTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text(good)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(LiditError, match="names no eos_token"):
        PromptTokenizer.from_folder(tmp_path)


def test_a_token_without_an_embedding_is_refused_before_any_weight_is_read(tmp_path):
    """The tokenizer of a fine-tuned model beside the weights of its base, for example."""
    folder = save_encoder(tmp_path, "llama")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    words = tokenizer.get_vocab_size()
    (folder / "model.safetensors").unlink()
    tokenizer.add_tokens(["zebra"])
    tokenizer.save(str(folder / "tokenizer.json"))
    message = (
        rf"{folder}: the tokenizer has token {words} \('zebra'\), but the model has embeddings for "
        rf"{words} tokens: put the model's own tokenizer.json there, or take the token out of it"
    )
    with pytest.raises(LiditError, match=message):
        encoders.load(str(folder))
    tokenizer.add_tokens(["giraffe"])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(LiditError, match=r"\('zebra'\) and 1 more, but"):
        encoders.load(str(folder))
