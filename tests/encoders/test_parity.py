"""Hidden states of every layer against PyTorch's transformers, in float32."""

import jax
import numpy as np
import pytest
import torch
import transformers

from lidit_jax import encoders
from lidit_jax.encoders import PromptFormat, TokenBatch

TOLERANCE = 1e-4
"""Largest absolute error over the rms of the layer."""

PROMPTS = [
    "a red circle",
    "",
    "three green stars to the left of a large purple heart, on a wooden table; 12 of them are blue",
    "一个红色的圆形在蓝色正方形的左边",
]
FAMILIES = ["llama", "llama-3.1", "mistral", "qwen2", "qwen3", "llava", "bert"]


def reference_states(folder, tokens, dtype=torch.float32) -> np.ndarray:
    """`hidden_states` of transformers, [L+1, B, S, D]."""
    model = transformers.AutoModel.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager"
    ).eval()
    model = getattr(model, "language_model", model)
    mask = torch.from_numpy(tokens.mask)
    with torch.no_grad():
        output = model(
            input_ids=torch.from_numpy(tokens.ids).long(),
            attention_mask=mask.long(),
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            output_hidden_states=True,
        )
    return torch.stack(output.hidden_states).numpy()


def error(ours, theirs) -> float:
    """Worst layer's largest absolute error over its rms; arguments are [L+1, valid tokens, D]."""
    assert ours.shape == theirs.shape
    worst = np.abs(ours - theirs).max(axis=(1, 2))
    return float((worst / np.sqrt(np.mean(theirs**2, axis=(1, 2)))).max())


def rms_error(ours, theirs) -> float:
    """Worst layer's rms of the error over its rms."""
    squares = np.mean((ours - theirs) ** 2, axis=(1, 2)) / np.mean(theirs**2, axis=(1, 2))
    return float(np.sqrt(squares).max())


def with_and_without_instruction(encoder, padding: str) -> TokenBatch:
    """All prompts twice, in one batch."""
    batches = [
        encoder.tokenize(PROMPTS, PromptFormat(instruction), length=60, padding=padding)
        for instruction in (encoders.INSTRUCTION, "")
    ]
    ids, mask = (np.concatenate([getattr(b, name) for b in batches]) for name in ("ids", "mask"))
    return TokenBatch(ids, mask, crop=0, truncated=0)


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_models_match_transformers(tiny_folder, family, padding):
    folder = tiny_folder(family)
    encoder = encoders.load(str(folder))
    tokens = encoder.tokenize(PROMPTS, max_prompt_tokens=40, padding=padding)
    ours = jax.jit(encoder.hidden_states)(encoder.params, tokens.ids, tokens.mask)
    assert ours.shape == (encoder.num_layers + 1, *tokens.ids.shape, encoder.width)
    theirs = reference_states(folder, tokens)[:, tokens.mask]
    assert error(np.asarray(ours)[:, tokens.mask], theirs) <= TOLERANCE


@pytest.mark.parametrize("padding", ["right", "left"])
def test_minilm_matches_transformers(packaged, padding):
    encoder = packaged("minilm")
    tokens = with_and_without_instruction(encoder, padding)
    ours = jax.jit(encoder.hidden_states)(encoder.params, tokens.ids, tokens.mask)
    theirs = reference_states(encoder.folder, tokens)[:, tokens.mask]
    assert error(np.asarray(ours)[:, tokens.mask], theirs) <= TOLERANCE


def test_smollm2_matches_transformers(packaged):
    """The same function (float64), computed as well as PyTorch computes it (float32).

    SmolLM2's largest activations are thousands of times its others, so PyTorch's own float32 is
    3.5 times the tolerance away from its float64: only float64 can be held to it. In float32 the
    whole of a layer is far closer, and its worst number about as good as PyTorch's.
    """
    encoder = packaged("smollm2")
    right, left = (with_and_without_instruction(encoder, side) for side in ("right", "left"))
    exact, single = (
        reference_states(encoder.folder, right, dtype)[:, right.mask]
        for dtype in (torch.float64, torch.float32)
    )
    states = jax.jit(encoder.hidden_states)
    for tokens in (right, left):
        ours = np.asarray(states(encoder.params, tokens.ids, tokens.mask))[:, tokens.mask]
        assert rms_error(ours, single) <= 1e-5
        assert error(ours, exact) <= 3 * error(single, exact)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda p: p.astype("float64"), encoder.params)
        double = np.asarray(states(params, left.ids, left.mask))[:, left.mask]
    assert double.dtype == np.float64
    assert error(double, exact) <= TOLERANCE


@pytest.mark.parametrize("family", ["qwen2", "bert"])
def test_bfloat16_stays_as_close_as_its_eight_bits_allow(tiny_folder, family):
    exact, narrow = (
        encoders.load(str(tiny_folder(family)), dtype=d) for d in ("float32", "bfloat16")
    )
    tokens = exact.tokenize(PROMPTS)
    states = [
        np.asarray(jax.jit(e.hidden_states)(e.params, tokens.ids, tokens.mask), np.float32)
        for e in (exact, narrow)
    ]
    assert {a.dtype.name for a in jax.tree.leaves(narrow.params)} == {"bfloat16"}
    assert rms_error(states[1][:, tokens.mask], states[0][:, tokens.mask]) <= 2e-2
