"""Shapes of a call of LI-DiT: those of the batches it trains on."""

import jax
import numpy as np

from lidit_jax.benchmarks.synthetic import make_batch
from lidit_jax.config.load import load_recipe
from lidit_jax.models import LIDiT
from lidit_jax.models.abstract_inputs import abstract_inputs, abstract_parameters, initialize
from lidit_jax.models.flops import TextStream
from tests.models.conftest import small_config

STREAMS = (
    TextStream(width=24, tokens=9, prefix_length=3, layers=2),
    TextStream(width=40, tokens=11, prefix_length=4),
)


def shape(leaf):
    return leaf.shape, leaf.dtype


def test_they_are_those_of_a_batch():
    config = load_recipe("demo")
    batch = make_batch(config, STREAMS, 2)
    inputs = abstract_inputs(STREAMS, config.latent_shape, batch=2)
    assert shape(inputs.x_t) == shape(batch["latent"])
    assert shape(inputs.t) == ((2,), np.float32)
    for name in ("features", "masks"):
        ours = [shape(leaf) for leaf in getattr(inputs, name)]
        assert ours == [shape(leaf) for leaf in batch[name]]


def test_parameters_depend_on_widths_and_channels_and_not_on_lengths_and_sides():
    model = LIDiT(small_config())
    small = abstract_parameters(model, STREAMS, channels=4)
    longer = [TextStream(s.width, 2 * s.tokens, s.prefix_length + 1, s.layers) for s in STREAMS]
    large = jax.eval_shape(
        lambda key: initialize(model, key, longer, (16, 8, 4)), jax.random.key(0)
    )
    assert jax.tree.map(shape, small) == jax.tree.map(shape, large)
    wider = abstract_parameters(model, STREAMS, channels=5)
    assert jax.tree.map(shape, small) != jax.tree.map(shape, wider)
