"""Hidden states of every layer against PyTorch's transformers, in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from lidit_jax import encoders
from lidit_jax.encoders import PromptFormat, TokenBatch
from tests.encoders.conftest import PROMPTS
from tests.encoders.tiny_models import DECODERS, ENCODERS, FAMILIES

TOLERANCE = 1e-4
"""Largest absolute error over the rms of the layer."""


def reference_states(model: transformers.PreTrainedModel, tokens: TokenBatch) -> np.ndarray:
    """`hidden_states` of transformers, [L+1, B, S, D]."""
    inputs = {"input_ids": torch.from_numpy(tokens.ids).long()}
    mask = torch.from_numpy(tokens.mask)
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    else:
        model = getattr(model.base_model, "language_model", model.base_model)
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    model.set_attn_implementation("eager")  # the only one that knows Gemma 2's soft cap
    with torch.no_grad():
        output = model(**inputs, attention_mask=mask.long(), output_hidden_states=True)
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


def half_with_instruction(encoder, padding: str) -> TokenBatch:
    """Two prompts behind the instruction and two alone, in one batch."""
    batches = [
        encoder.tokenize(prompts, PromptFormat(instruction), length=60, padding=padding)
        for instruction, prompts in ((encoders.INSTRUCTION, PROMPTS[:2]), ("", PROMPTS[2:]))
    ]
    ids, mask = (np.concatenate([getattr(b, name) for b in batches]) for name in ("ids", "mask"))
    return TokenBatch(ids, mask, crop=0, truncated=0)


def least_cosine(ours, theirs) -> float:
    """Of the worst token in the worst layer; arguments are [L+1, valid tokens, D]."""
    lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    return float((np.sum(ours * theirs, axis=-1) / lengths).min())


@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_models_match_transformers(tiny, family):
    """All layers, padding on both sides, and prompts five times as long as a window."""
    model, encoder, tokens, ours = tiny(family)
    assert ours.shape == (encoder.num_layers + 1, *tokens.ids.shape, encoder.width)
    assert ours.dtype == np.float32
    theirs = reference_states(model, tokens)
    assert error(ours[:, tokens.mask], theirs[:, tokens.mask]) <= TOLERANCE


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_bfloat16_points_the_same_way(tiny, family):
    _, exact, tokens, states = tiny(family)
    narrow = encoders.load(str(exact.folder), dtype="bfloat16")
    assert {a.dtype.name for a in jax.tree.leaves(narrow.params)} == {"bfloat16"}
    ours = jax.jit(narrow.hidden_states)(narrow.params, tokens.ids, tokens.mask)
    assert ours.dtype == jnp.bfloat16
    ours = np.asarray(ours, np.float32)
    assert least_cosine(ours[:, tokens.mask], states[:, tokens.mask]) >= 0.999


@pytest.mark.parametrize("padding", ["right", "left"])
def test_minilm_matches_transformers(packaged, padding):
    encoder = packaged("minilm")
    tokens = half_with_instruction(encoder, padding)
    ours = jax.jit(encoder.hidden_states)(encoder.params, tokens.ids, tokens.mask)
    model = transformers.AutoModel.from_pretrained(encoder.folder).eval()
    theirs = reference_states(model, tokens)[:, tokens.mask]
    assert error(np.asarray(ours)[:, tokens.mask], theirs) <= TOLERANCE


def test_smollm2_matches_transformers(packaged):
    """The same function (float64), computed as well as PyTorch computes it (float32).

    SmolLM2's largest activations are thousands of times its others, so PyTorch's own float32 is
    3.5 times the tolerance away from its float64: only float64 can be held to it. In float32 the
    whole of a layer is far closer, and its worst number about as good as PyTorch's.
    """
    encoder = packaged("smollm2")
    right, left = (half_with_instruction(encoder, side) for side in ("right", "left"))
    model = transformers.AutoModel.from_pretrained(encoder.folder, dtype=torch.float64).eval()
    exact = reference_states(model, right)[:, right.mask]
    single = reference_states(model.float(), right)[:, right.mask]
    states = jax.jit(encoder.hidden_states)
    ours = np.asarray(states(encoder.params, right.ids, right.mask))[:, right.mask]
    assert rms_error(ours, single) <= 1e-5
    assert error(ours, exact) <= 3 * error(single, exact)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda p: p.astype("float64"), encoder.params)
        double = np.asarray(states(params, left.ids, left.mask))[:, left.mask]
    assert double.dtype == np.float64
    assert error(double, exact) <= TOLERANCE
