"""Logical axes become mesh axes, in the state and inside the compiled step."""

import functools
import math

import flax.linen as nn
import jax
import pytest
from jax.sharding import PartitionSpec

from lidit_jax.checkpoints.state import create_state
from lidit_jax.config.load import load_recipe
from lidit_jax.config.schema import MeshConfig, ModelConfig
from lidit_jax.errors import LiditError
from lidit_jax.models import LIDiT
from lidit_jax.models.abstract_inputs import initialize
from lidit_jax.models.flops import TextStream
from lidit_jax.parallel.mesh import make_mesh
from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES, sharded_shapes
from lidit_jax.training.optimizers import make_optimizer


def state_shapes(mesh, **model):
    """Shapes and shardings of the whole state of a small model; nothing is computed."""
    config = ModelConfig(**({"width": 32, "depth": 2, "heads": 4, "dtype": "float32"} | model))
    streams = [
        TextStream(width=24, tokens=9, prefix_length=3),
        TextStream(width=40, tokens=11, prefix_length=4),
    ]
    recipe = load_recipe("demo")

    def init(key):
        return initialize(LIDiT(config), key, streams, latent_shape=(8, 8, 4))

    create = functools.partial(create_state, init, make_optimizer(recipe), recipe)
    with nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        return sharded_shapes(mesh, jax.eval_shape(create))


def spec(leaf):
    """Mesh axes of each array axis, trailing None included."""
    return tuple(leaf.sharding.spec) + (None,) * (len(leaf.shape) - len(leaf.sharding.spec))


def test_blocks_are_split_over_fsdp_and_tensor_in_weights_averages_and_optimizer():
    state = state_shapes(make_mesh(MeshConfig(1, 4, 2)))
    (adam,) = (
        s
        for s in jax.tree.leaves(state.opt_state, is_leaf=lambda s: hasattr(s, "mu"))
        if hasattr(s, "mu")
    )
    for tree in (state.params, state.ema_params, adam.mu, adam.nu):
        block = tree["blocks"]
        assert spec(block["mlp"]["up"]["kernel"]) == (None, "fsdp", "tensor")
        assert spec(block["mlp"]["down"]["kernel"]) == (None, "tensor", "fsdp")
        assert spec(block["self_attention"]["query"]["kernel"]) == (None, "fsdp", "tensor")
        assert spec(block["self_attention"]["out"]["kernel"]) == (None, "tensor", "fsdp")
    for scalar in (state.step, state.position, state.key):
        assert scalar.sharding.spec == PartitionSpec()


def test_no_device_holds_much_more_than_its_share():
    mesh = make_mesh(MeshConfig(1, 8, 1))
    leaves = jax.tree.leaves(state_shapes(mesh))
    whole = sum(math.prod(leaf.shape) for leaf in leaves)
    largest = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)
    assert largest < 1.2 * whole / 8


def test_a_width_that_does_not_divide_is_refused_with_the_name_of_an_array():
    with pytest.raises(LiditError) as refusal:
        state_shapes(make_mesh(MeshConfig(1, 8, 1)), width=36, heads=3)
    message = str(refusal.value)
    assert message.startswith("config.mesh: .params")
    assert "does not divide over" in message
    assert "\n" not in message
