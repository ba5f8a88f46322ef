"""A fresh state: created already sharded, whichever optimizer updates it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from lidit_jax.checkpoints.state import create_state
from lidit_jax.config.load import load_recipe
from lidit_jax.parallel.mesh import make_mesh
from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES, sharded_shapes
from lidit_jax.training.optimizers import OPTIMIZERS, make_optimizer

ROWS, COLUMNS = 256, 512
"""Adafactor keeps rows and columns apart from 128 on."""


def boxed_params(key):
    kernel = 0.02 * jax.random.normal(key, (ROWS, COLUMNS))
    return {
        "layer": {
            "kernel": nn.LogicallyPartitioned(kernel, ("embed", "mlp")),
            "bias": nn.LogicallyPartitioned(jnp.zeros(COLUMNS), ("mlp",)),
        }
    }


@pytest.fixture(params=list(OPTIMIZERS))
def created(request):
    config = load_recipe("demo", [f"optimizer.name={request.param}", "mesh.fsdp=8", "mesh.data=1"])
    optimizer = make_optimizer(config)
    create = functools.partial(create_state, boxed_params, optimizer, config)
    mesh = make_mesh(config.mesh)
    with nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        shapes = sharded_shapes(mesh, jax.eval_shape(create))
    shardings = jax.tree.map(lambda shape: shape.sharding, shapes)
    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        state = jax.jit(lambda: nn.unbox(create()), out_shardings=shardings)()
        yield optimizer, state


def test_an_update_leaves_the_structure_of_a_state_that_was_created_sharded(created):
    """Parameters are boxed with the names of their axes where the state is created, and bare where
    it is updated: Muon must tell matrices by their names in both."""
    optimizer, state = created
    gradients = jax.tree.map(jnp.ones_like, state.params)
    updates, after = jax.jit(optimizer.update)(gradients, state.opt_state, state.params)
    assert jax.tree.structure(after) == jax.tree.structure(state.opt_state)
    assert jax.tree.structure(updates) == jax.tree.structure(state.params)


def test_values_of_a_parameters_shape_are_split_like_it_and_others_are_whole(created):
    _, state = created
    matrices = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == (ROWS, COLUMNS)]
    for leaf in (state.params["layer"]["kernel"], *matrices):
        assert leaf.sharding.spec == PartitionSpec("fsdp", "tensor")
    others = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim < 2]
    assert all(leaf.sharding.spec in (PartitionSpec(), PartitionSpec("tensor")) for leaf in others)
