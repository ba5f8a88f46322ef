"""Whatever the mesh: the loss and the gradients of one device, and no collective by accident."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.config.schema import MeshConfig
from lidit_jax.models import LIDiT
from lidit_jax.parallel.mesh import batch_sharding, make_mesh, replicated
from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES, sharded_shapes
from tests.models.conftest import PREFIX_LENGTHS, randomized, small_config

MODEL = LIDiT(small_config(position="conv+rope"))
ROWS = 8
MESHES = {
    "data": MeshConfig(data=8),
    "fsdp": MeshConfig(data=1, fsdp=8),
    "tensor": MeshConfig(data=2, tensor=4),
    "context": MeshConfig(replica=2, data=1, context=4),
    "fsdp, tensor, context": MeshConfig(data=1, fsdp=2, tensor=2, context=2),
    "replica, fsdp, tensor": MeshConfig(replica=2, data=1, fsdp=2, tensor=2),
}


def batch():
    """x_t, t, features and masks of two streams, and a target."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    masks = tuple(np.arange(s) < rng.integers(5, s + 1, size=(ROWS, 1)) for s in (9, 11))
    features = (draw(ROWS, 9, 24), draw(ROWS, 11, 40))
    t = rng.uniform(0, 1000, ROWS).astype(np.float32)
    return draw(ROWS, 8, 8, 4), t, features, masks, draw(ROWS, 8, 8, 4)


def loss(params, batch):
    *inputs, target = batch
    return jnp.mean((MODEL.apply({"params": params}, *inputs, PREFIX_LENGTHS) - target) ** 2)


@functools.cache
def boxed():
    """Shapes of the parameters, with the logical names of their axes."""
    *inputs, _ = batch()
    init = functools.partial(MODEL.init, prefix_lengths=PREFIX_LENGTHS)
    return jax.eval_shape(init, jax.random.key(0), *inputs)["params"]


@pytest.fixture(scope="module")
def params():
    shapes = nn.unbox(boxed())
    return randomized(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))


@pytest.fixture(scope="module")
def expected(params):
    return jax.jit(jax.value_and_grad(loss))(params, batch())


@functools.cache
def compiled(name):
    """The mesh and the program, once for both tests."""
    mesh = make_mesh(MESHES[name])
    shapes = sharded_shapes(mesh, boxed())
    shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    rows = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=batch_sharding(mesh)),
        batch(),
    )
    gradient = jax.jit(jax.value_and_grad(loss), out_shardings=(replicated(mesh), shardings))
    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        return mesh, shardings, gradient.lower(shapes, rows).compile()


@pytest.mark.parametrize("name", MESHES)
def test_loss_and_gradients_are_those_of_one_device(name, params, expected):
    mesh, shardings, program = compiled(name)
    rows = jax.device_put(batch(), batch_sharding(mesh))
    value, gradients = program(jax.device_put(params, shardings), rows)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected[1]))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        reference = functools.reduce(lambda node, key: node[key.key], path, expected[1])
        np.testing.assert_allclose(
            leaf, reference, atol=1e-5 * largest, err_msg=jax.tree_util.keystr(path)
        )


KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"


def collectives(program):
    """Kinds of collectives in a compiled program, with the largest array of each, in elements."""
    found = {}
    for shapes, kind in re.findall(rf" = (.*?) ({KINDS})(?:-start)?\(", program.as_text()):
        sizes = [
            np.prod([int(n) for n in s.split(",") if n]) for s in re.findall(r"\[(.*?)\]", shapes)
        ]
        found.setdefault(kind, []).append(int(max(sizes)))
    return found


def test_copies_of_the_model_only_sum_their_gradients():
    assert set(collectives(compiled("data")[2])) == {"all-reduce"}


def test_split_weights_are_gathered_where_they_are_used_and_activations_never_are():
    """No gather exceeds the largest weight of one layer."""
    found = collectives(compiled("fsdp")[2])
    assert max(found["all-gather"]) <= 3 * 3 * 32 * 32, "the ResBlock's convolution"
    sideways = found.get("all-to-all", []) + found.get("collective-permute", [])
    assert max(sideways, default=0) <= 32, "times and masks, a few numbers a row"


def test_split_images_gather_keys_and_values_of_self_attention():
    """[2 rows of 8 in fours, 16 tokens, 4 heads, 8 wide], and nothing the size of the weights."""
    found = collectives(compiled("context")[2])
    assert found["all-gather"]
    assert max(found["all-gather"]) <= 4 * 16 * 32


def test_constraints_that_vanish_would_be_noticed():
    """Under the old mesh context flax ignores logical names: the tokens would stay whole."""
    mesh = make_mesh(MESHES["context"])

    def split(x):
        return nn.with_logical_constraint(x, ("batch", "tokens", None))

    x = jnp.zeros((8, 16, 32))
    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        held = jax.jit(split)(x).sharding.shard_shape(x.shape)
    assert held == (4, 4, 32)
