"""Caption dropout: one reproducible draw a sample, the same for every text stream."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.diffusion.dropout import drop_captions, sample_keys

KEY = jax.random.key(0)


def streams(batch):
    """Two text streams of unequal length and width; the empty prompts are shorter, and -1."""
    features = (jnp.ones((batch, 5, 3), jnp.bfloat16), jnp.full((batch, 7, 2), 2.0))
    masks = (jnp.ones((batch, 5), bool), jnp.ones((batch, 7), bool))
    unconditional_features = (-jnp.ones((1, 4, 3)), -jnp.ones((1, 7, 2)))
    unconditional_masks = (jnp.ones((1, 4), bool), jnp.ones((1, 7), bool).at[0, 6].set(False))
    return features, masks, unconditional_features, unconditional_masks


def drop(indices, probability):
    keys = sample_keys(KEY, jnp.asarray(indices))
    return drop_captions(keys, *streams(len(indices)), probability)


def dropped_rows(features):
    return np.asarray(features[0][:, 0, 0]) < 0


def test_probability_zero_changes_nothing():
    features, masks, *_ = streams(64)
    for before, after in zip((*features, *masks), sum(drop(range(64), 0.0), ()), strict=True):
        np.testing.assert_array_equal(before, after)
        assert before.dtype == after.dtype


def test_probability_one_gives_every_sample_the_empty_prompt():
    features, masks = drop(range(64), 1.0)
    np.testing.assert_array_equal(features[0][:, :4], -1)
    np.testing.assert_array_equal(features[0][:, 4], 0)  # padding of the shorter empty prompt
    np.testing.assert_array_equal(features[1], -1)
    np.testing.assert_array_equal(masks[0], [[True] * 4 + [False]] * 64)
    np.testing.assert_array_equal(masks[1], [[True] * 6 + [False]] * 64)
    assert features[0].dtype == jnp.bfloat16


def test_features_and_masks_of_all_streams_are_dropped_together():
    features, masks = drop(range(64), 0.5)
    rows = dropped_rows(features)
    assert 0 < rows.sum() < 64
    np.testing.assert_array_equal(np.asarray(features[1][:, 0, 0]) < 0, rows)
    np.testing.assert_array_equal(~np.asarray(masks[0][:, 4]), rows)
    np.testing.assert_array_equal(~np.asarray(masks[1][:, 6]), rows)


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_the_share_of_dropped_samples_is_the_probability(probability):
    features, _ = drop(range(4_000), probability)
    assert dropped_rows(features).mean() == pytest.approx(probability, abs=0.02)


def test_a_sample_is_dropped_by_its_global_index_wherever_it_is():
    whole = dropped_rows(drop(range(64), 0.5)[0])
    order = np.random.default_rng(0).permutation(64)
    np.testing.assert_array_equal(dropped_rows(drop(order[:24], 0.5)[0]), whole[order[:24]])


def test_another_step_drops_other_samples():
    keys = [sample_keys(jax.random.key(step), jnp.arange(64)) for step in (0, 1)]
    first, second = (dropped_rows(drop_captions(k, *streams(64), 0.5)[0]) for k in keys)
    assert not np.array_equal(first, second)
