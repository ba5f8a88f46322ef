"""The refiners against identities and against diffusers' port of HunyuanVideo's."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTokenRefiner

from lidit_jax.config.schema import RefinerConfig
from lidit_jax.errors import LiditError
from lidit_jax.models.refiner import CollaborativeRefiner, LayerMix, LinguisticRefiner

from ..numerics import EPSILON, SAME, assert_close, in_float64, rounding, to_float64
from .conftest import randomized

WIDTH, HEADS = 32, 4


@functools.cache
def _compiled(method, statics):
    return jax.jit(method, static_argnums=statics)


def call(module, params, *arguments):
    """`module.apply`, compiled; whole numbers are static, as in the model."""
    statics = tuple(i + 1 for i, a in enumerate(arguments) if isinstance(a, int))
    return _compiled(module.apply, statics)({"params": params}, *arguments)


def initialize(module, *arguments):
    statics = tuple(i + 1 for i, a in enumerate(arguments) if isinstance(a, int))
    variables = _compiled(module.init, statics)(jax.random.key(0), *arguments)
    return nn.unbox(variables).get("params", {})


def stream(seed=0, tokens=7, width=24, valid=(7, 4)):
    rng = np.random.default_rng(seed)
    features = jnp.asarray(rng.normal(size=(2, tokens, width)), jnp.float32)
    return features, jnp.asarray(np.arange(tokens) < np.array(valid)[:, None])


def linguistic(config=None):
    return LinguisticRefiner(WIDTH, HEADS, config or RefinerConfig(), jnp.float32)


def test_at_initialization_it_is_the_projection_of_the_normed_features():
    features, mask = stream()
    refiner = linguistic()
    arguments = (features, mask, jnp.ones(2), jnp.ones((2, WIDTH)))
    params = initialize(refiner, *arguments)
    refined = call(refiner, params, *arguments)
    rms = np.sqrt(np.mean(np.square(features), axis=-1, keepdims=True) + 1e-6)
    expected = (features / rms) @ params["projection"]["kernel"]
    np.testing.assert_allclose(refined.tokens[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(refined.tokens[1, :4], expected[1, :4], atol=1e-5)


def layers_of_a_token():
    """Three layers of very different size and mean, as those of LLMs are."""
    rng = np.random.default_rng(1)
    size, mean = np.array([[0.1], [1.0], [30.0]]), np.array([[0.0], [2.0], [-20.0]])
    return jnp.asarray(rng.normal(size=(2, 5, 3, 24)) * size + mean, jnp.float32)


def test_layers_are_concatenated_in_their_order_without_parameters():
    states = layers_of_a_token()
    mix = LayerMix("concatenate", jnp.float32)
    assert initialize(mix, states) == {}
    expected = np.concatenate([states[:, :, i] for i in range(3)], axis=-1)
    np.testing.assert_array_equal(call(mix, {}, states), expected)


@pytest.mark.parametrize("kind", ["average", "learned_average"])
def test_averages_are_of_layers_that_are_normalized_each_for_itself(kind):
    states = layers_of_a_token()
    mix, exact = LayerMix(kind, jnp.float32), np.asarray(states, np.float64)
    params = initialize(mix, states)
    logits = np.array([1.0, 0.0, -2.0]) if kind == "learned_average" else np.zeros(3)
    if kind == "learned_average":
        np.testing.assert_array_equal(params["weights"], np.zeros(3))
        params = {"weights": jnp.asarray(logits, jnp.float32)}
    else:
        assert params == {}
    weights = np.exp(logits) / np.exp(logits).sum()

    def average(states, weights):
        return np.einsum("bsnd,n->bsd", states, weights)

    centered = exact - exact.mean(axis=-1, keepdims=True)
    normed = centered / np.sqrt(np.square(centered).mean(axis=-1, keepdims=True) + 1e-6)
    ours = call(mix, params, states)
    # The mean of values of size 20 is rounded in float32, and all that follows.
    assert_close(ours, average(normed, weights), rounding(terms=24 * 30, sums=3))
    wrong = [average(exact, weights), average(centered, weights)]
    if kind == "learned_average":
        wrong.append(average(normed, weights[::-1]))
    for other in wrong:
        assert np.abs(np.asarray(ours) - other).max() > 0.1


def test_a_refiner_of_several_layers_is_one_of_their_combination():
    states, mask = layers_of_a_token(), jnp.asarray(np.arange(5) < np.array([[5], [3]]))
    broken = states.at[1, 3:].set(jnp.nan)  # what padding holds does not matter
    rest = (mask, jnp.ones(2), jnp.ones((2, WIDTH)))
    refiner = linguistic(RefinerConfig(layer_mix="learned_average"))
    params = randomized(initialize(refiner, states, *rest))
    mixed = call(LayerMix("learned_average", jnp.float32), params["layer_mix"], states)
    one = {name: leaf for name, leaf in params.items() if name != "layer_mix"}
    expected = call(refiner, one, mixed, *rest)
    ours = call(refiner, params, broken, *rest)
    np.testing.assert_allclose(ours.tokens[mask], expected.tokens[mask], atol=1e-5)
    np.testing.assert_allclose(ours.pooled, expected.pooled, atol=1e-5)


def test_without_a_time_embedding_it_needs_an_embedder_of_its_own():
    features, mask = stream()
    times = jnp.array([3.0, 900.0])
    with pytest.raises(LiditError, match="own_time_embedder=False: give"):
        initialize(linguistic(RefinerConfig(own_time_embedder=False)), features, mask, times)
    assert initialize(linguistic(RefinerConfig(own_time_embedder=True)), features, mask, times)


def test_attention_is_bidirectional_unless_causal_is_asked_for():
    features, mask = stream(valid=(7, 7))
    later = features.at[:, -1].add(1.0)
    for causal in (False, True):
        refiner = linguistic(RefinerConfig(causal=causal, pool="prompt"))
        rest = (mask, jnp.ones(2), jnp.ones((2, WIDTH)), 7)  # pools nothing: attention alone
        params = initialize(refiner, features, *rest)
        params = randomized(params)
        before = call(refiner, params, features, *rest).tokens
        after = call(refiner, params, later, *rest).tokens
        change = np.abs(after - before)[:, 0].max()
        assert (change == 0.0) if causal else (change > 1e-4)


def test_gates_depend_on_time_and_on_the_pooled_features():
    features, mask = stream()
    refiner = linguistic()
    embedding = jnp.ones((2, WIDTH))
    arguments = (features, mask, jnp.ones(2), embedding)
    params = randomized(initialize(refiner, *arguments))
    base = call(refiner, params, *arguments).tokens
    other = call(refiner, params, features, mask, jnp.ones(2), -embedding).tokens
    assert np.abs(other - base)[:, :4].max() > 1e-3


def test_the_pooled_vector_counts_valid_tokens_only():
    features, mask = stream()
    refiner = linguistic()
    arguments = (features, mask, jnp.ones(2), jnp.ones((2, WIDTH)))
    params = randomized(initialize(refiner, *arguments))
    short = (features[:, :4], mask[:, :4], *arguments[2:])
    np.testing.assert_allclose(
        call(refiner, params, *arguments).pooled[1],
        call(refiner, params, *short).pooled[1],
        atol=1e-6,
    )


@pytest.mark.parametrize("lengths", [(7,), (7, 5), (7, 5, 6)])
def test_collaborative_refiner_starts_as_the_identity(lengths):
    streams = [stream(k, n, WIDTH, (n, n - 2)) for k, n in enumerate(lengths)]
    tokens, masks = [s[0] for s in streams], [s[1] for s in streams]
    conditions = [jnp.ones((2, WIDTH))] * len(streams)
    refiner = CollaborativeRefiner(HEADS, RefinerConfig(), jnp.float32)
    params = initialize(refiner, tokens, masks, conditions)
    for before, after in zip(tokens, call(refiner, params, tokens, masks, conditions), strict=True):
        np.testing.assert_array_equal(before, after)


def test_each_stream_reads_all_the_others_and_the_update_is_simultaneous():
    streams = [stream(k, 6, WIDTH, (6, 6)) for k in range(3)]
    tokens, masks = [s[0] for s in streams], [s[1] for s in streams]
    conditions = [jnp.ones((2, WIDTH))] * 3
    refiner = CollaborativeRefiner(HEADS, RefinerConfig(), jnp.float32)
    params = initialize(refiner, tokens, masks, conditions)
    params = randomized(params)
    base = call(refiner, params, tokens, masks, conditions)
    for changed in range(3):
        moved = list(tokens)
        moved[changed] = tokens[changed].at[:, 2, 0].add(1.0)
        out = call(refiner, params, moved, masks, conditions)
        for k in range(3):
            if k != changed:
                assert np.abs(out[k] - base[k]).max() > 1e-4
    # Silencing what stream 0 does to itself must not reach stream 1: it read the incoming tokens.
    silent = jax.tree.map(jnp.copy, params)
    silent["block_0_stream_0"] = jax.tree.map(jnp.zeros_like, silent["block_0_stream_0"])
    out = call(refiner, silent, tokens, masks, conditions)
    np.testing.assert_array_equal(out[1], base[1])


def test_padding_of_other_streams_is_not_read():
    (a, mask_a), (b, mask_b) = stream(0, 6, WIDTH, (6, 6)), stream(1, 5, WIDTH, (5, 2))
    conditions = [jnp.ones((2, WIDTH))] * 2
    refiner = CollaborativeRefiner(HEADS, RefinerConfig(), jnp.float32)
    params = initialize(refiner, [a, b], [mask_a, mask_b], conditions)
    params = randomized(params)
    base = call(refiner, params, [a, b], [mask_a, mask_b], conditions)
    noisy = b.at[1, 2:].set(100.0)
    out = call(refiner, params, [a, noisy], [mask_a, mask_b], conditions)
    np.testing.assert_array_equal(out[0], base[0])


@pytest.mark.numeric
def test_equals_hunyuanvideos_refiner():
    """diffusers' HunyuanVideoTokenRefiner, random weights, masks: the same function in float64.

    In float32 the angles of the time's sinusoids are off by up to 912 epsilon at t = 912.
    """
    torch.manual_seed(0)
    theirs = HunyuanVideoTokenRefiner(
        in_channels=24, num_attention_heads=HEADS, attention_head_dim=WIDTH // HEADS, num_layers=2
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    weights = {name: value.numpy() for name, value in theirs.state_dict().items()}
    features, mask = stream()
    t = np.array([37.0, 912.0], np.float32)

    def dense(name):
        return {"kernel": weights[f"{name}.weight"].T, "bias": weights[f"{name}.bias"]}

    def mlp(name):
        return {"up": dense(f"{name}.linear_1"), "down": dense(f"{name}.linear_2")}

    def norm(name):
        return {"scale": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}

    params = {
        "projection": dense("proj_in"),
        "pooled_embedder": mlp("time_text_embed.text_embedder"),
        "time_embedder": {"mlp": mlp("time_text_embed.timestep_embedder")},
    }
    for i in range(2):
        block = f"token_refiner.refiner_blocks.{i}"
        params[f"block_{i}"] = {
            "attention_norm": norm(f"{block}.norm1"),
            "mlp_norm": norm(f"{block}.norm2"),
            "gate": {"linear": dense(f"{block}.norm_out.linear")},
            "self_attention": {
                "query": dense(f"{block}.attn.to_q"),
                "key": dense(f"{block}.attn.to_k"),
                "value": dense(f"{block}.attn.to_v"),
                "out": dense(f"{block}.attn.to_out.0"),
            },
            "mlp": {
                "up": dense(f"{block}.ff.net.0.proj"),
                "down": dense(f"{block}.ff.net.2"),
            },
        }
    config = RefinerConfig(feature_norm="none", pool_raw=True, own_time_embedder=True)
    refined = call(linguistic(config), params, features, mask, jnp.asarray(t))
    valid = np.asarray(mask)
    arrays = to_float64((features, mask, t))
    with in_float64(), torch.no_grad():
        features, mask, t = map(torch.from_numpy, arrays)
        exact = theirs.double()(features, t, mask).numpy()[valid]
        double = linguistic(config).apply({"params": to_float64(params)}, *arrays)
        assert_close(double.tokens[valid], exact, SAME)
    tolerance = rounding(terms=4 * WIDTH, sums=12) + arrays[2].max() * EPSILON
    assert_close(refined.tokens[valid], exact, tolerance)
