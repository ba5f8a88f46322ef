"""Hidden states of every layer against PyTorch's transformers.

They are the same function in float64, and in float32 they are as near to it as rounding allows.
transformers keeps a few constants in float32 in every model: rotary frequencies, which are computed
in another order than ours, and Gemma's scale of the embedding.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from lidit_jax import encoders
from lidit_jax.encoders import PromptFormat, TokenBatch
from tests.encoders.conftest import PROMPTS
from tests.encoders.parity import error, exact_states, our_exact_states, our_states
from tests.encoders.tiny_models import DECODERS, ENCODERS, FAMILIES
from tests.numerics import EPSILON, rounding

pytestmark = pytest.mark.numeric

ROUNDED_CONSTANTS = 4 * EPSILON
"""What those constants make of float64. A frequency of 0.1 is off by 1.5e-9, and its angle after a
hundred tokens by EPSILON; with their frequencies, ours are within 1e-14 of all families."""


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
    return TokenBatch(ids, mask, prefix_length=0, truncated=0)


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
    exact = exact_states(model, tokens, encoder.tokenizer.pad)
    assert error(our_exact_states(encoder, tokens), exact) <= ROUNDED_CONSTANTS
    assert error(ours[:, tokens.mask], exact) <= rounding(terms=80, sums=6 * encoder.num_layers)


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
    exact = exact_states(transformers.AutoModel.from_pretrained(encoder.folder).eval(), tokens)
    assert error(our_exact_states(encoder, tokens), exact) <= ROUNDED_CONSTANTS
    assert error(our_states(encoder, tokens), exact) <= rounding(terms=1536, sums=6 * 6)


def test_smollm2_matches_transformers(packaged):
    """The same function in float64, and in float32 what rounding makes of it.

    SmolLM2's largest activations are hundreds of times the rms of their layer. What a layer is off
    by is decided by them, so here it is measured by them, and by the rms of the error.
    """
    encoder = packaged("smollm2")
    right, left = (half_with_instruction(encoder, side) for side in ("right", "left"))
    model = transformers.AutoModel.from_pretrained(encoder.folder, dtype=torch.float32).eval()
    exact = exact_states(model, right)
    assert rms_error(our_exact_states(encoder, left), exact) <= ROUNDED_CONSTANTS
    ours = our_states(encoder, right)
    assert rms_error(ours, exact) <= rounding(terms=1536, sums=30) / 4
    off, largest = (np.abs(states).max(axis=(1, 2)) for states in (ours - exact, exact))
    assert (off / largest).max() <= rounding(terms=1536, sums=30)
