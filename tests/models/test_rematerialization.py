"""What each policy of `config.model.remat` keeps of the backbone's blocks for the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.models import LIDiT

from .conftest import small_config

DEPTH, ROWS, HEADS, IMAGE, TEXT, WIDTH = 2, 2, 4, 16, 13, 24
"""Layers, images, heads, image tokens N, text tokens S behind the prefix_lengths, and width D."""
SCORES = (ROWS, HEADS, IMAGE, IMAGE), (ROWS, HEADS, IMAGE, TEXT)


def kept(policy, inputs):
    """Shapes of what all blocks keep, without the axis of the blocks."""
    *arrays, prefix_lengths = inputs
    model = LIDiT(small_config(width=WIDTH, depth=DEPTH, heads=HEADS, remat=policy))
    params = jax.eval_shape(
        lambda: model.init(jax.random.key(0), *arrays, prefix_lengths)["params"]
    )
    apply = lambda p: model.apply({"params": p}, *arrays, prefix_lengths)  # noqa: E731
    backward = jax.eval_shape(lambda p: jax.vjp(apply, p)[1], params)
    shapes = [leaf.shape for leaf in jax.tree.leaves(backward)]
    return [shape[1:] for shape in shapes if shape[:1] == (DEPTH,)]


def of_the_image(shapes, width=WIDTH):
    """How many are activations of the image tokens: [B, N, D], [B N, D] or [B, N, H, K]."""
    heads = (ROWS, IMAGE, HEADS, width // HEADS)
    return sum(shape in {(ROWS, IMAGE, width), (ROWS * IMAGE, width), heads} for shape in shapes)


@pytest.mark.parametrize(
    ("policy", "tensors"),
    [
        ("full", 1),  # what enters the block
        ("attention", 3),  # and the results of both attentions
        ("branches", 6),  # and what the branches give
        ("dots", 10),  # and queries, keys and values; no scores, and the FFN's inner side
    ],
)
def test_a_policy_keeps_what_it_says_and_no_scores(policy, tensors, inputs):
    shapes = kept(policy, inputs)
    assert of_the_image(shapes) == tensors
    assert of_the_image(shapes, 4 * WIDTH) == (policy == "dots")
    assert not set(SCORES) & set(shapes)


def test_without_a_policy_the_scores_are_kept(inputs):
    """What the other test looks for is there to be found."""
    assert set(SCORES) <= set(kept("none", inputs))


@pytest.mark.parametrize("policy", ["full", "attention", "branches", "dots"])
def test_gradients_do_not_change(policy, params, inputs):
    *arrays, prefix_lengths = inputs

    def gradients(policy):
        model = LIDiT(small_config(remat=policy))
        loss = lambda p: jnp.sum(model.apply({"params": p}, *arrays, prefix_lengths) ** 2)  # noqa: E731
        return jax.jit(jax.grad(loss))(params)

    expected, found = gradients("none"), gradients(policy)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for one, other in zip(*map(jax.tree.leaves, (expected, found)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6 * largest)


def test_refiners_recompute_too(inputs):
    """Their blocks' weights are not kept whole where `fsdp` splits them: see `rematerialized`."""
    *arrays, prefix_lengths = inputs
    model = LIDiT(small_config(remat="dots"))
    params = jax.eval_shape(
        lambda: model.init(jax.random.key(0), *arrays, prefix_lengths)["params"]
    )
    traced = jax.make_jaxpr(lambda p: model.apply({"params": p}, *arrays, prefix_lengths))(params)
    outside = [e for e in traced.eqns if e.primitive.name in ("remat2", "checkpoint", "remat")]
    assert len(outside) == 2 * 2 + 2, "two blocks in each linguistic refiner, one for each stream"


@pytest.mark.parametrize("unroll", [1, DEPTH])
def test_layers_without_a_loop_are_kept_from_being_merged_with_their_recomputation(unroll, inputs):
    """A loop parts forward and backward pass; where all layers are unrolled, barriers do."""
    *arrays, prefix_lengths = inputs
    model = LIDiT(small_config(depth=DEPTH, remat="full", scan_unroll=unroll))
    params = jax.eval_shape(
        lambda: model.init(jax.random.key(0), *arrays, prefix_lengths)["params"]
    )
    traced = jax.make_jaxpr(lambda p: model.apply({"params": p}, *arrays, prefix_lengths))(params)
    (layers,) = (e.params["jaxpr"] for e in traced.eqns if e.primitive.name == "scan")
    (block,) = (e for e in layers.eqns if "prevent_cse" in e.params)
    assert block.params["prevent_cse"] == (unroll == DEPTH)
