"""`features`: one layer, only the blocks it needs, padding and the instruction's cache."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax import encoders
from lidit_jax.encoders import PromptFormat, TokenBatch
from lidit_jax.errors import LiditError
from tests.encoders.conftest import PROMPTS
from tests.encoders.tiny_models import DECODERS, ENCODERS


def features(encoder, params, tokens, layer, prefix=None) -> np.ndarray:
    compiled = jax.jit(encoder.features, static_argnums=3)
    return np.asarray(compiled(params, tokens.ids, tokens.mask, layer, prefix))


def rms_error(ours, theirs) -> float:
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max() / np.sqrt(np.mean(theirs**2)))


@pytest.mark.parametrize(
    ("family", "layer"),
    [
        *(("llama", -5), ("llama", -1), ("gemma3", 2), ("olmo3", -1), ("t5", -1), ("umt5", 0)),
        *(("bert", -3), ("clip", -1), ("clip", -2), ("siglip", -1), ("siglip", 1)),
    ],
)
def test_features_are_one_of_the_hidden_states(tiny, family, layer):
    _, encoder, tokens, states = tiny(family)
    ours = features(encoder, encoder.params, tokens, layer)
    assert rms_error(ours[tokens.mask], states[layer][tokens.mask]) <= 1e-5


SEVERAL = [("llama", (-1, 0, 2)), ("t5", (4, 1, -3)), ("bert", (2, -1))]


@pytest.mark.parametrize(("family", "layers"), SEVERAL)
def test_several_layers_are_hidden_states_in_the_order_asked_for(tiny, family, layers):
    _, encoder, tokens, states = tiny(family)
    ours = features(encoder, encoder.params, tokens, layers)
    assert ours.shape[2] == len(layers)
    expected = np.stack([states[layer][tokens.mask] for layer in layers], axis=1)
    assert rms_error(ours[tokens.mask], expected) <= 1e-5
    assert rms_error(ours[tokens.mask][:, ::-1], expected) > 0.1, "the order matters"


def test_a_layer_that_does_not_exist_is_refused(tiny):
    _, encoder, tokens, _ = tiny("llama")
    with pytest.raises(LiditError, match="layer -6 does not exist: this encoder has 4 blocks"):
        encoder.features(encoder.params, tokens.ids, tokens.mask, -6)


def test_the_paper_s_layer_skips_the_last_two_blocks_and_the_final_norm(tiny_folder):
    encoder = encoders.load(str(tiny_folder("llama")))
    tokens = encoder.tokenize(PROMPTS)
    assert encoder.default_layer == -3
    broken = encoder.params | {
        "final_norm": jnp.full_like(encoder.params["final_norm"], jnp.nan),
        "layers": jax.tree.map(lambda p: p.at[-2:].set(jnp.nan), encoder.params["layers"]),
    }
    for layers in (-3, (1, -3)):  # of several, the highest alone decides
        np.testing.assert_array_equal(
            features(encoder, broken, tokens, layers),
            features(encoder, encoder.params, tokens, layers),
        )


@pytest.mark.parametrize("family", [*DECODERS, *ENCODERS])
def test_padding_changes_nothing_and_is_finite(tiny, family):
    _, _, tokens, states = tiny(family)
    assert np.isfinite(states).all()
    on_the_right, on_the_left = np.split(states, 2, axis=1)
    right_mask, left_mask = np.split(tokens.mask, 2)
    assert rms_error(on_the_right[:, right_mask], on_the_left[:, left_mask]) <= 1e-5


def test_a_row_needs_no_padding(tiny):
    _, encoder, tokens, states = tiny("llama")
    first = encoder.tokenize(PROMPTS[:1])
    assert first.mask.all()
    ours = features(encoder, encoder.params, first, -2)
    assert rms_error(ours[0], states[-2, 0][tokens.mask[0]]) <= 1e-5


@pytest.mark.parametrize("family", ["llama", "bert"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_without_any_token_is_finite(tiny_folder, family, dtype):
    encoder = encoders.load(str(tiny_folder(family)), dtype=dtype)
    nothing = TokenBatch(np.zeros((2, 5), np.int32), np.zeros((2, 5), bool), 0, 0)
    assert np.isfinite(features(encoder, encoder.params, nothing, -1)).all()


@pytest.mark.parametrize(
    ("family", "layer"),
    [("llama", -1), ("llama", (-1, 0, 2)), *((family, -3) for family in DECODERS)],
)
def test_the_instruction_cache_gives_the_same_features(tiny, family, layer):
    """Also where the instruction is longer than the window."""
    _, encoder, tokens, states = tiny(family)
    B = len(PROMPTS)
    right = TokenBatch(tokens.ids[:B], tokens.mask[:B], tokens.prefix_length, 0)
    prefix = encoder.prefix_cache(encoder.params, PromptFormat(), layer)
    expected = states[layer, :B]
    if isinstance(layer, tuple):
        expected = np.stack([states[number, :B] for number in layer], axis=2)
    assert prefix.features.shape == (tokens.prefix_length, *expected.shape[2:])
    cached = features(encoder, encoder.params, right, layer, prefix)
    assert rms_error(cached[right.mask], expected[right.mask]) <= 1e-5


def test_the_instruction_cache_is_exact_on_smollm2(packaged):
    encoder = packaged("smollm2")
    tokens = encoder.tokenize(PROMPTS)
    layer = encoder.default_layer
    prefix = encoder.prefix_cache(encoder.params, PromptFormat(), layer)
    plain = features(encoder, encoder.params, tokens, layer)
    cached = features(encoder, encoder.params, tokens, layer, prefix)
    assert rms_error(cached[tokens.mask], plain[tokens.mask]) <= 1e-4


def test_only_decoders_with_an_instruction_have_a_cache(tiny_folder):
    llama, bert, clip = (encoders.load(str(tiny_folder(f))) for f in ("llama", "bert", "clip"))
    assert bert.prefix_cache(bert.params, PromptFormat(), -1) is None
    assert clip.causal
    assert clip.prefix_cache(clip.params, PromptFormat(), -1) is None
    assert llama.prefix_cache(llama.params, PromptFormat(""), -3) is None
    assert llama.prefix_cache(llama.params, PromptFormat(), 0) is None, "no block runs"
    prefix, tokens = llama.prefix_cache(llama.params, PromptFormat(), -3), bert.tokenize(PROMPTS)
    with pytest.raises(LiditError, match="is not a decoder: only decoders use a prefix"):
        bert.features(bert.params, tokens.ids, tokens.mask, -1, prefix)


def test_an_earlier_token_sees_the_later_ones_only_in_bidirectional_encoders(tiny_folder):
    for family, causal in (("qwen2", True), ("bert", False), ("clip", True), ("siglip", False)):
        encoder = encoders.load(str(tiny_folder(family)))
        assert encoder.causal is causal
        tokens = encoder.tokenize(["a red circle", "a red square"])
        first = features(encoder, encoder.params, tokens, -1)[:, tokens.prefix_length]
        same = np.allclose(first[0], first[1], atol=1e-6)
        assert same is causal
