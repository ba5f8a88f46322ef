"""CLIP and SigLIP: tokens as transformers cuts them, and rows that SigLIP fills."""

import dataclasses
import json
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
import transformers
from tokenizers import pre_tokenizers

from lidit_jax import encoders
from lidit_jax.config.schema import MeshConfig
from lidit_jax.encoders import PromptFormat, TokenBatch
from lidit_jax.encoders.clip import ACTIVATIONS, quick_gelu
from lidit_jax.encoders.tokenizer_check import load_tokenizer
from lidit_jax.encoders.tokenizer_probes import PROBE_PROMPTS
from lidit_jax.parallel.mesh import make_mesh
from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES

PROMPTS = [*PROBE_PROMPTS, "A RED Circle", "a  red\n circle", "Ünïcode", "it's 12 o'clock"]


def clip_tokenizer() -> transformers.PreTrainedTokenizerBase:
    """Bytes, bytes that end a word, and a few merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("r", "e"), ("re", "d</w>"), ("c", "i"), ("i", "t</w>")]
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    tokens += ["".join(pair) for pair in merges] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges)


def siglip2_tokenizer() -> transformers.PreTrainedTokenizerBase:
    """Letters, other text as bytes; no begin token, as the published ones."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{i:02X}>" for i in range(256))]
    tokens += ["▁", *"abcdefghijklmnopqrstuvwxyz", "re", "red", "▁c"]
    merges = [("r", "e"), ("re", "d"), ("▁", "c")]
    return transformers.Siglip2Tokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=merges,
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
    )


def saved(tokenizer: transformers.PreTrainedTokenizerBase, folder: Path, family: str) -> Path:
    tokenizer.save_pretrained(folder)
    config = {"model_type": family, "vocab_size": len(tokenizer)}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("make", "family", "positions"),
    [
        (clip_tokenizer, "clip_text_model", 77),
        (siglip2_tokenizer, "siglip_text_model", 64),
        (siglip2_tokenizer, "siglip2_text_model", 64),
    ],
)
def test_odd_prompts_have_the_tokens_of_transformers(
    tmp_path, monkeypatch, make, family, positions
):
    """With begin and end token, lower case, and cut to the number of positions."""
    monkeypatch.setenv("LIDIT_CACHE", str(tmp_path / "cache"))
    folder = saved(make(), tmp_path / "model", family)
    ours = load_tokenizer(folder, positions)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    lengths = []
    for prompt in PROMPTS:
        row = ours([prompt], PromptFormat(""), max_prompt_tokens=1000)
        expected = theirs(prompt, truncation=True, max_length=positions)["input_ids"]
        assert row.ids[0].tolist() == expected, prompt
        assert row.mask.all()
        lengths.append(len(expected))
    assert max(lengths) == positions
    assert ours.encode(["A RED Circle"]) == ours.encode(["a red circle"])
    filled = theirs("a red circle", padding="max_length", max_length=positions)["input_ids"]
    whole = ours(["a red circle"], PromptFormat(""), length=positions)
    assert whole.ids[0].tolist() == filled


def test_siglip_fills_rows_with_the_tokenizer_s_padding_token(tiny):
    """Whatever stands in the padding of the input, and however long that is."""
    _, encoder, tokens, states = tiny("siglip")
    assert encoder.model.padding_token == encoder.tokenizer.pad
    B, S = tokens.ids.shape
    noise = np.random.default_rng(0).integers(0, 300, (B, S + 40)).astype(np.int32)
    mask = np.concatenate([tokens.mask, np.zeros((B, 40), bool)], axis=1)
    ids = np.where(mask, np.pad(tokens.ids, ((0, 0), (0, 40))), noise)
    assert encoder.model.max_positions < S + 40
    run = jax.jit(encoder.features, static_argnums=3)
    ours = np.asarray(run(encoder.params, ids, mask, 2))[:, :S]
    np.testing.assert_allclose(ours[tokens.mask], states[2][tokens.mask], rtol=1e-4, atol=1e-4)
    # Other padding tokens are other features.
    other = dataclasses.replace(encoder.model, padding_token=7)
    changed = np.asarray(jax.jit(other.features, static_argnums=3)(encoder.params, ids, mask, 2))
    assert np.abs(changed[:, :S][tokens.mask] - ours[tokens.mask]).max() > 0.01


def test_a_row_of_all_positions_fits(tiny):
    _, encoder, _, _ = tiny("clip")
    row = encoder.tokenize(["red " * 200], PromptFormat(""), max_prompt_tokens=500)
    assert row.ids.shape == (1, encoder.model.max_positions)
    assert row.truncated == 1
    full = TokenBatch(row.ids, row.mask, 0, 0)
    assert np.isfinite(np.asarray(encoder.encode(full, -1))).all()


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_int8_and_a_mesh_give_nearly_the_same_features(tiny, family):
    """Scales of 127 steps, a few blocks upon each other: within a few percent."""
    _, encoder, tokens, states = tiny(family)
    mesh = make_mesh(MeshConfig(1, 4, 2))
    narrow = encoders.load(str(encoder.folder), dtype="int8", mesh=mesh)
    assert narrow.dtype == "int8"
    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        ours = np.asarray(narrow.encode(tokens, -1), np.float32)[tokens.mask]
    exact = states[-1][tokens.mask]
    assert np.linalg.norm(ours - exact) <= 0.1 * np.linalg.norm(exact)


def test_activations_are_those_of_transformers():
    x = np.linspace(-6, 6, 101, dtype=np.float32).reshape(1, 1, -1)
    theirs = transformers.activations.ACT2FN
    torch = pytest.importorskip("torch")
    for name, ours in ACTIVATIONS.items():
        np.testing.assert_allclose(ours(x), theirs[name](torch.from_numpy(x)), atol=2e-6)
    assert float(quick_gelu(np.ones((1, 1, 1), np.float32))[0, 0, 0]) == pytest.approx(0.845796)
