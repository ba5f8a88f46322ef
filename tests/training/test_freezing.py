"""Frozen parameters: they stay to the bit, and cost no gradients and no moments."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from lidit_jax.checkpoints.state import create_state
from lidit_jax.config.load import load_recipe
from lidit_jax.errors import LiditError
from lidit_jax.models import LIDiT
from lidit_jax.models.abstract_inputs import abstract_inputs, abstract_parameters
from lidit_jax.models.flops import TextStream
from lidit_jax.parallel.mesh import make_mesh, replicated
from lidit_jax.parallel.rules import LOGICAL_AXIS_RULES, sharded_shapes
from lidit_jax.training.freezing import check_frozen, trained_summary
from lidit_jax.training.optimizers import make_optimizer, rate_of
from lidit_jax.training.step import make_train_step
from lidit_jax.weights.parameter_paths import by_path

FROZEN, TRAINED = (128, 256), (256, 128)
"""Shapes by which parameters and their moments are told apart; Adafactor factors both."""


def init(key):
    def kernel(key, shape, names):
        return {"kernel": nn.LogicallyPartitioned(0.1 * jax.random.normal(key, shape), names)}

    return {
        "first": kernel(jax.random.fold_in(key, 0), FROZEN, ("embed", "mlp")),
        "second": kernel(jax.random.fold_in(key, 1), TRAINED, ("mlp", "embed")),
    }


def loss(params, frozen, batch, key):
    hidden = batch["x"] @ params["first"]["kernel"]
    return jnp.mean((hidden @ params["second"]["kernel"] - batch["x"]) ** 2), {}


@pytest.mark.parametrize("name", ["adamw", "adafactor", "muon"])
def test_frozen_ones_stay_to_the_bit_and_the_rest_learns_on_a_mesh(name):
    settings = ["optimizer.freeze=('first',)", "optimizer.weight_decay=0.1", "mesh.data=1"]
    settings += ["optimizer.learning_rate=0.01", "optimizer.warmup_steps=0", "mesh.fsdp=4"]
    settings += ["training.accumulation=2", "mesh.tensor=2", "training.ema_decay=0.5"]
    config = load_recipe("demo", [f"optimizer.name={name}", *settings])
    mesh = make_mesh(config.mesh)
    create = functools.partial(create_state, init, make_optimizer(config), config)
    with nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        shardings = jax.tree.map(
            lambda leaf: leaf.sharding, sharded_shapes(mesh, jax.eval_shape(create))
        )
    batch = {"x": jax.random.normal(jax.random.key(1), (16, FROZEN[0]))}
    with jax.set_mesh(mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        state = jax.jit(lambda: nn.unbox(create()), out_shardings=shardings)()
        before = jax.tree.map(np.asarray, state.params)
        moments = [leaf.shape[-2:] for leaf in jax.tree.leaves(state.opt_state)]
        step = jax.jit(
            make_train_step(loss, config),
            donate_argnums=0,
            out_shardings=(shardings, replicated(mesh)),
        )
        losses, norms = [], []
        for _ in range(8):
            state, metrics = step(state, {}, batch, rate_of(config))
            losses.append(float(metrics["loss"].compute()))
            norms.append(metrics)
    assert losses[-1] < 0.9 * losses[0]
    for tree in (state.params, state.ema_params):
        np.testing.assert_array_equal(tree["first"]["kernel"], before["first"]["kernel"])
        assert (tree["second"]["kernel"] != before["second"]["kernel"]).any()
    assert state.params["first"]["kernel"].sharding.spec == PartitionSpec("fsdp", "tensor")
    assert FROZEN not in moments
    assert TRAINED in moments
    last = {key: float(value.compute()) for key, value in norms[-1].items()}
    assert last["gradient_norm"] == last["gradient_norm/second"], "of trained ones alone"
    assert "gradient_norm/first" not in last


MODEL = ["model.width=16", "model.depth=2", "model.heads=2", "model.patch=2", "model.dtype=float32"]
STREAMS = [TextStream(width=8, tokens=5, prefix_length=2)]


def products(freeze):
    """Matrix products in the traced step of a small network, and the values of its state."""
    config = load_recipe("demo", [*MODEL, f"optimizer.freeze={freeze}"])
    model = LIDiT(config.model)

    def loss(params, frozen, batch, key):
        return jnp.mean(model.apply({"params": params}, *batch["inputs"], (2,)) ** 2), {}

    def create():
        params = nn.unbox(abstract_parameters(model, STREAMS, 4))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), params)
        return create_state(lambda key: zeros, make_optimizer(config), config)

    state = jax.eval_shape(create)
    batch = {"inputs": abstract_inputs(STREAMS, (8, 8, 4), 2)}
    traced = jax.make_jaxpr(make_train_step(loss, config))(state, {}, batch, rate_of(config))
    return str(traced).count("dot_general"), state


def test_no_gradient_of_a_frozen_kernel_is_computed():
    everything, state = products(())
    kernels = [path for path in by_path(state.params) if path.endswith("kernel")]
    without_mlp, _ = products(("blocks/mlp",))
    assert everything - without_mlp == 2, "the gradients of up and down"
    # With the refiners alone, gradients go through the blocks, and to no kernel of theirs.
    refiners, small = products(("(?!linguistic_refiner).*",))
    frozen = [path for path in kernels if not path.startswith("linguistic_refiner")]
    assert everything - refiners >= len(frozen) - sum("conv" in path for path in frozen)
    values = [sum(leaf.size for leaf in jax.tree.leaves(one.opt_state)) for one in (state, small)]
    trained = sum(
        leaf.size
        for path, leaf in by_path(state.params).items()
        if path.startswith("linguistic_refiner")
    )
    counts = values[0] - 2 * sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert values[1] == 2 * trained + counts


def shapes():
    paths = {"blocks/mlp/kernel": (1000, 200), "blocks/mlp/bias": (200,), "output/bias": (50,)}
    return {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in paths.items()}


def test_a_run_tells_what_it_trains():
    assert trained_summary(load_recipe("demo"), shapes()) == []
    config = load_recipe("demo", ["optimizer.freeze=('blocks/.*/kernel',)"])
    check_frozen(config, shapes())
    assert trained_summary(config, shapes()) == [
        "trains 250 of 0.2 M parameters; frozen: blocks/mlp/kernel"
    ]


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ("('blocs',)", "config.optimizer.freeze: 'blocs' matches no parameter as a whole; there"),
        ("('blocks','output')", "freezes all 3 parameters: leave some to train"),
    ],
)
def test_a_pattern_without_a_match_and_a_run_without_anything_to_train_are_refused(freeze, message):
    config = load_recipe("demo", [f"optimizer.freeze={freeze}"])
    with pytest.raises(LiditError) as refusal:
        check_frozen(config, shapes())
    assert message in str(refusal.value)


@pytest.mark.parametrize("field", ["optimizer.freeze", "training.init_new"])
def test_what_is_no_regular_expression_is_refused(field):
    with pytest.raises(LiditError, match=rf"config\.{field}: '\(' is not a regular expression"):
        load_recipe("demo", ["training.init_from=demo", f"{field}=('(',)"])
