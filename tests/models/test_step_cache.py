"""Step caching inside the network: what is kept, what is skipped, and that skipping is real."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.models import LIDiT

from .conftest import apply, initialize, randomized, small_config


@pytest.fixture(scope="module")
def model():
    return LIDiT(small_config(depth=4))


@pytest.fixture(scope="module")
def params(model, inputs):
    return randomized(initialize(model, inputs))


@pytest.fixture(scope="module")
def forms(model, inputs):
    """The network in full, keeping and reusing, compiled once each."""
    prefix_lengths = inputs[-1]
    keep = jax.jit(functools.partial(model.apply, prefix_lengths=prefix_lengths, keep=True))
    reuse = jax.jit(
        lambda v, *arrays, reuse: model.apply(
            v, *arrays, prefix_lengths=prefix_lengths, reuse=reuse
        )
    )
    return keep, reuse


def test_an_evaluation_that_keeps_is_the_plain_one(model, params, forms, inputs):
    prediction, kept = forms[0]({"params": params}, *inputs[:-1])
    np.testing.assert_allclose(prediction, apply(model, params, inputs), rtol=0, atol=2e-6)
    assert kept.change.shape == (2, 16, 32)
    assert kept.context.shape == (2, 6 + 7, 32), "of both streams, without their instructions"


def test_reusing_at_the_same_place_gives_the_same_prediction(params, forms, inputs):
    keep, reuse = forms
    prediction, kept = keep({"params": params}, *inputs[:-1])
    again = reuse({"params": params}, *inputs[:-1], reuse=kept)
    np.testing.assert_allclose(again, prediction, rtol=0, atol=5e-6)


def test_a_reusing_evaluation_reads_its_own_image_and_time(params, forms, inputs):
    keep, reuse = forms
    x_t, t, *rest = inputs[:-1]
    prediction, kept = keep({"params": params}, x_t, t, *rest)
    for x_now, t_now in ((x_t + 0.1, t), (x_t, t - 40)):
        other = reuse({"params": params}, x_now, t_now, *rest, reuse=kept)
        assert np.abs(other - prediction).max() > 1e-3


def test_neither_the_refiners_nor_the_middle_blocks_run(params, forms, inputs):
    """Nothing that is broken there is seen."""
    keep, reuse = forms
    _, kept = keep({"params": params}, *inputs[:-1])
    expected = reuse({"params": params}, *inputs[:-1], reuse=kept)
    middle = np.array([0, np.nan, np.nan, 0], np.float32)

    def break_middle(leaf):
        return leaf + middle.reshape(-1, *[1] * (leaf.ndim - 1))

    broken = params | {"blocks": jax.tree.map(break_middle, params["blocks"])}
    for name in params:
        if "refiner" in name:
            broken[name] = jax.tree.map(lambda leaf: leaf * np.nan, params[name])
    np.testing.assert_array_equal(reuse({"params": broken}, *inputs[:-1], reuse=kept), expected)
    assert not np.isfinite(keep({"params": broken}, *inputs[:-1])[0]).any()


def test_the_compiled_program_does_less_work(model, params, forms, inputs):
    keep, reuse = forms
    unrolled = LIDiT(small_config(depth=4, scan_unroll=4))  # a loop's body is counted once
    keep = jax.jit(functools.partial(unrolled.apply, prefix_lengths=inputs[-1], keep=True))
    arrays = ({"params": params}, *inputs[:-1])
    _, kept = keep(*arrays)
    reuse = jax.jit(
        lambda v, *a, reuse: unrolled.apply(v, *a, prefix_lengths=inputs[-1], reuse=reuse)
    )
    full = keep.lower(*arrays).compile().cost_analysis()["flops"]
    less = reuse.lower(*arrays, reuse=kept).compile().cost_analysis()["flops"]
    assert less < 0.45 * full


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_few_blocks_have_no_middle_to_skip(depth, inputs):
    model = LIDiT(small_config(depth=depth))
    params = randomized(initialize(model, inputs))
    variables, prefix_lengths = {"params": params}, inputs[-1]
    prediction, kept = jax.jit(
        functools.partial(model.apply, prefix_lengths=prefix_lengths, keep=True)
    )(variables, *inputs[:-1])
    np.testing.assert_allclose(prediction, apply(model, params, inputs), rtol=0, atol=2e-6)
    assert bool(jnp.any(kept.change != 0)) == (depth == 3)
