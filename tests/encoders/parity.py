"""Hidden states of ours and of transformers, and how far they are apart."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from lidit_jax import encoders
from lidit_jax.encoders import TokenBatch
from tests.numerics import in_float64, to_float64


def reference_states(
    model: transformers.PreTrainedModel, tokens: TokenBatch, padding_token: int
) -> np.ndarray:
    """`hidden_states` of transformers, the last one normalized, [L+1, B, S, D]."""
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    model = model.base_model
    model = getattr(model, "language_model", getattr(model, "text_model", model))
    model.set_attn_implementation("eager")  # the only one that knows Gemma 2's soft cap
    if model.config.model_type.startswith("siglip"):
        return _filled_states(model, tokens, padding_token)
    mask = torch.from_numpy(tokens.mask)
    inputs = {"input_ids": torch.from_numpy(tokens.ids).long(), "attention_mask": mask.long()}
    if "t5" not in model.config.model_type:
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return _states(model, inputs)


def _filled_states(
    model: transformers.PreTrainedModel, tokens: TokenBatch, padding_token: int
) -> np.ndarray:
    """The states of rows that are filled to the number of positions, as SigLIP's processor does."""
    counts = tokens.mask.sum(axis=1)
    shape = len(counts), model.config.max_position_embeddings
    rows = np.full(shape, padding_token, np.int64)
    for row, ids, mask, count in zip(rows, tokens.ids, tokens.mask, counts, strict=True):
        row[:count] = ids[mask]
    found = _states(model, {"input_ids": torch.from_numpy(rows)})
    states = np.zeros((len(found), *tokens.ids.shape, found.shape[-1]), found.dtype)
    for i, (mask, count) in enumerate(zip(tokens.mask, counts, strict=True)):
        states[:, i, mask] = found[:, i, :count]
    return states


def _states(model: transformers.PreTrainedModel, inputs: dict) -> np.ndarray:
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    return torch.stack([*output.hidden_states[:-1], output.last_hidden_state]).numpy()


def exact_states(
    model: transformers.PreTrainedModel, tokens: TokenBatch, padding_token: int = 0
) -> np.ndarray:
    """The states of transformers in float64, where tokens are valid."""
    model = copy.deepcopy(model).double()
    with in_float64():
        return reference_states(model, tokens, padding_token)[:, tokens.mask]


def our_states(encoder: encoders.TextEncoder, tokens: TokenBatch, params=None) -> np.ndarray:
    """In the type of the parameters, the encoder's own for None, where tokens are valid."""
    params = encoder.params if params is None else params
    states = jax.jit(encoder.hidden_states)(params, tokens.ids, tokens.mask)
    return np.asarray(states)[:, tokens.mask]


def our_exact_states(encoder: encoders.TextEncoder, tokens: TokenBatch) -> np.ndarray:
    """Ours in float64, where tokens are valid."""
    with in_float64():
        params = jax.tree.map(jnp.asarray, to_float64(encoder.params))
        states = our_states(encoder, tokens, params)
    assert states.dtype == np.float64
    return states


def error(ours, theirs) -> float:
    """Worst layer's largest absolute error over its rms; arguments are [L+1, valid tokens, D]."""
    assert ours.shape == theirs.shape
    worst = np.abs(ours - theirs).max(axis=(1, 2))
    return float((worst / np.sqrt(np.mean(theirs**2, axis=(1, 2)))).max())
