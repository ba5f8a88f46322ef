"""The whole network: identities at initialization, masks, prefix_lengths, sizes, switches."""

import dataclasses

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.config.load import load_recipe
from lidit_jax.config.schema import RefinerConfig
from lidit_jax.models import LIDiT

from .conftest import PIXART, apply, initialize, randomized, small_config


def test_the_output_is_exactly_zero_at_initialization(model, fresh, inputs):
    np.testing.assert_array_equal(apply(model, fresh, inputs), 0.0)


def test_padding_influences_nothing_whatever_it_holds(model, params, inputs):
    x_t, t, features, masks, prefix_lengths = inputs
    expected = apply(model, params, inputs)
    for filler in (1e4, jnp.inf, jnp.nan):
        filled = tuple(
            jnp.where(m[..., None], f, filler) for f, m in zip(features, masks, strict=True)
        )
        out = apply(model, params, (x_t, t, filled, masks, prefix_lengths))
        np.testing.assert_array_equal(out, expected)


def test_longer_padding_changes_nothing(model, params, inputs):
    x_t, t, features, masks, prefix_lengths = inputs
    longer = tuple(jnp.pad(f, ((0, 0), (0, 5), (0, 0))) for f in features)
    longer_masks = tuple(jnp.pad(m, ((0, 0), (0, 5))) for m in masks)
    out = apply(model, params, (x_t, t, longer, longer_masks, prefix_lengths))
    np.testing.assert_allclose(out, apply(model, params, inputs), atol=2e-6)


def test_dropping_the_mask_would_be_seen(model, params, inputs):
    x_t, t, features, masks, prefix_lengths = inputs
    everything = tuple(jnp.ones_like(m) for m in masks)
    out = apply(model, params, (x_t, t, features, everything, prefix_lengths))
    assert np.abs(out - apply(model, params, inputs)).max() > 1e-3


def test_an_empty_context_gives_finite_output_and_gradients(model, params, inputs):
    x_t, t, features, masks, prefix_lengths = inputs
    empty = tuple(jnp.zeros_like(m) for m in masks)

    def loss(params):
        return jnp.sum(apply(model, params, (x_t, t, features, empty, prefix_lengths)) ** 2)

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_just_the_instruction_is_dropped(model, params, inputs):
    """Keys of the backbone's cross-attention: what follows the instruction, of both streams."""
    _, intermediates = apply(model, params, inputs, mutable="intermediates")
    weights = intermediates["intermediates"]["blocks"]["cross_attention"]["attention_weights"][0]
    features, masks, prefix_lengths = inputs[2:]
    kept = sum(f.shape[1] - n for f, n in zip(features, prefix_lengths, strict=True))
    assert weights.shape == (2, 2, 4, 16, kept)
    valid = np.concatenate([m[:, n:] for m, n in zip(masks, prefix_lengths, strict=True)], axis=1)
    np.testing.assert_array_equal(np.asarray(weights).any(axis=(0, 2, 3)), valid)


def test_instruction_tokens_reach_the_image_through_the_refiners(model, params, inputs):
    x_t, t, features, masks, prefix_lengths = inputs
    changed = (features[0].at[:, 0].add(1.0), features[1])
    out = apply(model, params, (x_t, t, changed, masks, prefix_lengths))
    assert np.abs(out - apply(model, params, inputs)).max() > 1e-4


def test_time_and_every_prompt_token_matter(model, params, inputs):
    x_t, t, features, masks, prefix_lengths = inputs
    base = apply(model, params, inputs)
    assert (
        np.abs(apply(model, params, (x_t, t + 50, features, masks, prefix_lengths)) - base).max()
        > 1e-3
    )
    for k in range(2):
        changed = list(features)
        changed[k] = features[k].at[:, prefix_lengths[k]].add(1.0)
        other = (x_t, t, tuple(changed), masks, prefix_lengths)
        assert np.abs(apply(model, params, other) - base).max() > 1e-4


@pytest.mark.parametrize(("name", "billions"), [("lidit_1b", 0.93), ("lidit_10b", 9.52)])
def test_the_papers_sizes(name, billions):
    """Table 7 of the paper, as shapes only; the tolerance is 2%."""
    config = load_recipe(name)
    model = LIDiT(config.model)
    features = [jnp.zeros((1, 8, 4096))] * 2
    masks = [jnp.ones((1, 8), bool)] * 2
    shapes = jax.eval_shape(
        lambda: model.init(
            jax.random.key(0), jnp.zeros((1, 32, 32, 16)), jnp.zeros(1), features, masks, (2, 2)
        )
    )
    blocks = nn.unbox(shapes["params"]["blocks"])
    count = sum(leaf.size for leaf in jax.tree.leaves(blocks)) / 1e9
    assert count == pytest.approx(billions, rel=0.02)


@pytest.mark.parametrize("position", ["conv", "rope", "sincos", "conv+rope", "conv+sincos"])
def test_every_position_scheme_tells_places_apart(position, inputs):
    """A constant image gives a constant output only if tokens do not know where they are."""
    model = LIDiT(small_config(position=position))
    x_t = jnp.ones_like(inputs[0])
    constant = (x_t, *inputs[1:])
    params = randomized(initialize(model, constant))
    out = np.asarray(apply(model, params, constant))
    spread = np.ptp(out[:, ::2, ::2], axis=(1, 2)).max()
    if position == "rope":
        # Rotary positions act on differences between keys, and here all values are equal.
        assert spread < 1e-5
    else:
        assert spread > 1e-3


def test_any_multiple_of_the_patch_is_a_valid_size(model, params, inputs):
    x_t = jnp.ones((2, 4, 12, 4))
    assert apply(model, params, (x_t, *inputs[1:])).shape == (2, 4, 12, 4)


@pytest.mark.parametrize("streams", [1, 2, 3])
def test_one_to_three_streams(streams, inputs):
    x_t, t, features, masks, prefix_lengths = inputs
    pick = [0, 1, 0][:streams]
    chosen = (
        tuple(features[k] for k in pick),
        tuple(masks[k] for k in pick),
        tuple(prefix_lengths[k] for k in pick),
    )
    model = LIDiT(small_config())
    params = initialize(model, (x_t, t, *chosen))
    out = apply(model, randomized(params), (x_t, t, *chosen))
    assert np.isfinite(out).all()
    assert ("collaborative_refiner" in params) == (streams > 1)


ABLATIONS = {
    "causal refiner (table 3)": {"causal": True},
    "no gate (table 5)": {"gate": False},
    "one block (table 5)": {"blocks": 1},
    "three blocks (table 5)": {"blocks": 3},
    "concat only (table 6)": {"collaborative_blocks": 0},
    "raw features (table 2)": {"blocks": 0, "collaborative_blocks": 0},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_each_ablation_of_the_paper_is_a_switch(name, params, inputs):
    model = LIDiT(small_config(refiner=RefinerConfig(**ABLATIONS[name])))
    ablated = randomized(initialize(model, inputs))
    out = apply(model, ablated, inputs)
    assert np.isfinite(out).all()
    assert np.abs(out - apply(LIDiT(small_config()), params, inputs)).max() > 1e-3


def test_the_layer_scan_equals_unrolled_and_recomputed_layers(model, params, inputs):
    expected = apply(model, params, inputs)
    for changes in (
        {"scan_unroll": 2},
        *({"remat": name} for name in ("full", "dots", "branches", "attention")),
    ):
        out = apply(LIDiT(small_config(**changes)), params, inputs)
        np.testing.assert_allclose(out, expected, atol=1e-6)


def test_pixarts_options_scan_recompute_and_reuse_as_the_others(inputs):
    config = small_config(width=24, heads=2, depth=3, **PIXART)
    model = LIDiT(config)
    fresh = initialize(model, inputs)
    params = randomized(fresh)
    assert fresh["output"]["table"].shape == (2, 24)
    assert fresh["blocks"]["modulation"]["linear"]["bias"].shape == (3, 6 * 24)
    assert set(fresh["linguistic_refiner_0"]) == {"projection"}
    np.testing.assert_array_equal(apply(model, fresh, inputs), 0.0)

    expected = apply(model, params, inputs)
    other = LIDiT(dataclasses.replace(config, scan_unroll=3, remat="full"), "int8")
    quantized = apply(other, params, inputs)
    assert 0 < np.abs(quantized - expected).max() < 0.1 * np.abs(expected).max()

    *arrays, prefix_lengths = inputs

    def keep(variables, *arrays):
        kept = model.apply(variables, *arrays, prefix_lengths, keep=True)[1]
        return kept, model.apply(variables, *arrays, prefix_lengths, reuse=kept)

    kept, reused = jax.jit(keep)({"params": params}, *arrays)
    assert kept.pooled is None
    np.testing.assert_allclose(reused, expected, rtol=0, atol=1e-5)


def test_bfloat16_compute_stays_close_and_parameters_stay_float32(params, inputs):
    model = LIDiT(small_config(dtype="bfloat16"))
    fresh = initialize(model, inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}
    out = apply(model, params, inputs)
    expected = apply(LIDiT(small_config()), params, inputs)
    assert out.dtype == jnp.float32
    assert np.abs(out - expected).max() < 0.05 * np.abs(expected).max()


def test_parameter_paths_are_those_that_weight_tables_address(fresh):
    paths = set(flax.traverse_util.flatten_dict(fresh, sep="/"))
    for path in (
        "blocks/self_attention/query/kernel",
        "blocks/cross_attention/key/kernel",
        "blocks/mlp/up/kernel",
        "blocks/modulation/linear/kernel",
        "linguistic_refiner_0/block_1/self_attention/value/kernel",
        "linguistic_refiner_1/projection/kernel",
        "collaborative_refiner/block_0_stream_1/cross_attention/out/kernel",
        "output/linear/kernel",
    ):
        assert path in paths


def test_gates_can_be_asked_for(model, fresh, inputs):
    _, state = apply(model, fresh, inputs, mutable="intermediates")
    gates = state["intermediates"]["blocks"]["gates"][0]
    assert len(gates) == 3
    for gate in gates:
        assert gate.shape == (2, 2, 1, 32)
        np.testing.assert_array_equal(gate, 0.0)
